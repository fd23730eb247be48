"""Results as tables for the terminal."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from multitune.commands.compare import Comparison
from multitune.commands.grid import Point
from multitune.commands.probe import Findings
from multitune.data.records.balance import Balance
from multitune.data.records.corpus import Corpus
from multitune.evaluation.intervals import Interval
from multitune.evaluation.lengths import SAMPLE, Lengths
from multitune.experiments.synthetic import METHODS as WALKS
from multitune.experiments.synthetic import Synthetic
from multitune.pseudo_tasks import Division
from multitune.report.papers import BASELINE, Beside, Row
from multitune.results.run import RunResult, Scores, mean

NONE = "-"
MACRO = "macro_f1"


def runs(results: Sequence[RunResult]) -> Table:
    """One line a run: averages, drift and cost."""
    table = _table("method", "seed", f"seen {results[0].metric}", f"unseen {results[0].metric}", *_COST)
    for result in results:
        average = (_percent(result.average["seen"]), _percent(result.average["unseen"]))
        table.add_row(result.method, str(result.seed), *average, *_cost([result]))
    table.caption = "\n".join([*_macro(results), *_notes(results)])
    return table


def summary(comparison: Comparison) -> Table:
    """One line a method: averages and what they differ from the baseline, with intervals, drift and cost."""
    metric, baseline = comparison.metric, comparison.baseline
    table = _table("method", f"seen {metric}", f"- {baseline}", f"unseen {metric}", f"- {baseline}", *_COST)
    for method, sides in comparison.summary.items():
        cells = [" ".join([method, *_words(comparison.chosen[method])])]
        for side in ("seen", "unseen"):
            difference = comparison.differences.get(method, {}).get(side)
            cells += [_estimate(sides[side]), _signed(difference)]
        table.add_row(*cells, *_cost([run for run in comparison.chosen_runs if run.method == method]))
    table.caption = (
        f"averages over languages in percent, 95 % intervals ({comparison.interval}); "
        f"{comparison.chosen_runs[0].budget} gradient computations a run, each of ms/grad milliseconds"
    )
    table.caption = "\n".join([table.caption, *_macro(comparison.chosen_runs), *_notes(comparison.chosen_runs)])
    return table


def points(comparison: Comparison) -> Table:
    """One line a run of a grid; a star at the points that the summary is of."""
    keys = list(comparison.grid[0])
    metric = comparison.metric
    table = _table("", "method", *keys, "seed", f"seen {metric}", f"unseen {metric}", *_COST)
    for run, point in zip(comparison.runs, comparison.grid, strict=True):
        values = [*(f"{point[key]}" for key in keys), str(run.seed)]
        averages = (_percent(run.average["seen"]), _percent(run.average["unseen"]))
        table.add_row(
            "*" if point == comparison.chosen[run.method] else "", run.method, *values, *averages, *_cost([run])
        )
    table.caption = "*: best on dev, shown below"
    return table


def languages(results: Sequence[RunResult]) -> Table:
    """One line a language, one column a run; seen languages first."""
    table = _table("", "language", *_names(results))
    for side in ("seen", "unseen"):
        for row, language in enumerate(dict.fromkeys(k for run in results for k in getattr(run, side))):
            found = [getattr(run, side).get(language, {}).get(run.metric) for run in results]
            table.add_row(side if row == 0 else "", language, *(_percent(value) for value in found))
    return table


def classes(results: Sequence[RunResult]) -> list[Table]:
    """One line a label, one column a run: its F1 on seen and on unseen languages; nothing where there are no labels."""
    names = _names(results)
    tables = []
    for group in dict.fromkeys(group for run in results for group in run.by_class):
        scores = [run.by_class.get(group, {}) for run in results]
        examples = {label: found["examples"] for run in scores for label, found in run.items()}
        table = _table("label", "examples", *names)
        for label in sorted(examples, key=lambda label: (-examples[label], label)):
            row = (_percent(run[label]["f1"]) if label in run else NONE for run in scores)
            table.add_row(Text(label), f"{examples[label]:.0f}", *row)
        table.caption = f"F1 of each label, in percent: {group}"
        tables.append(table)
    return tables


def _names(results: Sequence[RunResult]) -> list[str]:
    """What tells runs apart in the head of a table."""
    many_seeds = len({result.seed for result in results}) > 1
    return [f"{run.method} {run.seed}" if many_seeds else run.method for run in results]


def beside(found: Beside) -> Table:
    """One line a language, one column a method: our score, and the paper's in brackets."""

    def cells(row: Row, sign: str = "") -> list[str]:
        return [f"{row[m]['ours']:{sign}.1f} ({row[m]['paper']:{sign}.1f})" if m in row else "" for m in found.mean]

    table = _table("language", *found.mean)
    for language, row in found.languages.items():
        table.add_row(Text(language), *cells(row))
    table.add_section()
    table.add_row(f"mean of {len(found.languages)}", *cells(found.mean))
    if found.gains:
        table.add_row(f"- {BASELINE}", *cells(found.gains, "+"))
    table.caption = f"{found.metric}, in brackets the Sequential Reptile paper's: {found.title}"
    return table


def scores(results: Scores) -> Table:
    """One line a language, one column a metric."""
    metrics = list(next(iter(results.values())))
    table = _table("language", *metrics)
    for language, found in results.items():
        table.add_row(language, *(_percent(found[metric]) for metric in metrics))
    return table


def probes(findings: Findings) -> list[Table]:
    """Cosines of languages' gradients; cosine and drift by layer; what is left of pretraining."""
    return [*_cosines(findings), _by_layer(findings), _skills(findings)]


def _cosines(findings: Findings) -> list[Table]:
    found = findings.gradient_similarity
    if found is None:
        return []
    table = _table("cosine of gradients", *found["languages"])
    for language, row in zip(found["languages"], found["cosines"], strict=True):
        table.add_row(language, *(f"{cosine:.2f}" for cosine in row))
    table.caption = f"held-out batches, languages by family; mean {found['cosine']:.2f}"
    if findings.proximity is not None:
        spearman, p = findings.proximity["spearman"], findings.proximity["p"]
        table.caption += f"; with distance in the family tree: Spearman {spearman:+.2f}, p = {p:.3f}"
    return [table]


def _by_layer(findings: Findings) -> Table:
    table = _table("layer", "mean cosine", "drift")
    layers = findings.gradient_similarity["layers"] if findings.gradient_similarity else {}
    drift = findings.drift["layers"] if findings.drift else {}
    for layer in layers or drift:
        cosine = f"{layers[layer]['cosine']:.2f}" if layer in layers else NONE
        table.add_row(layer, cosine, f"{drift[layer]:.2f}" if layer in drift else NONE)
    return table


_SKILLS = {"masked_lm": "masked token, nats", "retrieval": "translation found, %"}


def _skills(findings: Findings) -> Table:
    table = _table("retention", "seen before", "after", "unseen before", "after")
    for skill, label in _SKILLS.items():
        found = getattr(findings, skill)
        sides = [] if found is None else found["average"].values()
        cells = [_number(side[when]) for side in sides for when in ("pretrained", "tuned")]
        table.add_row(label, *(cells or [NONE] * 4))
    table.caption = "\n".join(findings.notes)
    return table


def retention(findings: Findings) -> Table:
    """One line a language: its skills with the pretrained and with the tuned weights."""
    found = {label: getattr(findings, skill) for skill, label in _SKILLS.items()}
    present = {label: values for label, values in found.items() if values is not None}
    table = _table("", "language", *(f"{label}: {when}" for label in present for when in ("before", "after")))
    for side, languages in (("seen", findings.seen), ("unseen", findings.unseen)):
        for row, language in enumerate(languages):
            values = [each[when].get(language) for each in present.values() for when in ("pretrained", "tuned")]
            table.add_row(side if row == 0 else "", language, *(_number(value) for value in values))
    return table


def counts(corpus: Corpus, lengths: Mapping[str, Lengths], max_length: int) -> Table:
    """Records by language and split, and their lengths in tokens."""
    table = _table("language", "train", "dev", "test", "left out", "bad", "tokens", "95 %", f"% over {max_length}")
    for language in corpus.test:
        splits = (corpus.train, corpus.dev, corpus.test)
        found = [str(len(split[language])) if language in split else NONE for split in splits]
        gone = (str(corpus.dropped.get(language, 0)), str(corpus.skipped.get(language, 0)))
        length = lengths.get(language)
        tokens = (
            [NONE] * 3
            if length is None
            else [f"{length.mean:.1f}", f"{length.percentile_95:.0f}", f"{length.over:.1f}"]
        )
        table.add_row(language, *found, *gone, *tokens)
    kind = (
        "heads of their own"
        if corpus.heads
        else corpus.task + (f", {len(corpus.labels)} labels" if corpus.labels else "")
    )
    dev = "test is dev; " if corpus.test_is_dev else ""
    table.caption = (
        f"{kind}; {dev}left out: their label is never seen in training;\n"
        f"tokens: mean and 95th percentile of at most {SAMPLE} records a split"
    )
    return table


def labels(balance: Sequence[Balance]) -> Table:
    """One line a label: how often it is in training, and the languages where its share is least and most."""
    table = _table("label", "in training", "%", "least %", "most %")
    for row in balance:
        least, most = (f"{share:.1f} {language}" for share, language in (row.least, row.most))
        table.add_row(Text(row.label), str(row.times), f"{row.share:.1f}", least, most)
    return table


def clusters(division: Division) -> Table:
    """One line a pseudo-task: its records, their most frequent label and their words."""
    found = division.description
    table = _table("pseudo-task", "train", "%", "dev", "most frequent label")
    table.add_column("words", overflow="fold")
    for cluster in found["clusters"]:
        label = next((f"{label} {percent:.1f} %" for label, percent in cluster["labels"].items()), NONE)
        dev = len(division.dev.get(cluster["task"], ()))
        words = " ".join(cluster["words"])
        numbers = (str(cluster["records"]), f"{cluster['percent']:.1f}", str(dev))
        table.add_row(cluster["task"], *numbers, Text(label), Text(words))
    table.caption = (
        f"of the records that train_limit and dev_limit leave; the principal components keep {found['variance']:.1f} % "
        f"of the variance"
    )
    return table


def _words(point: Point) -> list[str]:
    return [f"{key}={value}" for key, value in point.items()]


def synthetic(found: Synthetic) -> Table:
    """One line a method and start: where it ends, and the loss and cosine there."""
    table = _table("start", "method", "learning rate", "end", "to an optimum", "MTL loss", "cosine")
    for start in dict.fromkeys(walk.start for walk in found.walks if walk.start):
        for row, walk in enumerate(found.of_figures(start)):
            assert walk.end is not None
            table.add_row(
                "" if row else _point(start),
                WALKS[walk.method].label,
                f"{walk.learning_rate:g}",
                _point(walk.end),
                f"{walk.distance['mean']:.1f}",
                _half_width(walk.loss, 0),
                _half_width(walk.cosine, 2),
            )
        table.add_section()
    table.caption = (
        "end: of the first seed's walk; distance to the nearest optimum, MTL loss and mean pairwise cosine: averages "
        "over the last quarter of the walks, with 95 % intervals over seeds where tasks are drawn"
    )
    return table


def synthetic_sweep(found: Synthetic) -> Table:
    """One line a method: its cosine at each learning rate, over all starts; then how far Figure 3's ordering holds."""
    rates = sorted({outcome.learning_rate for outcome in found.sweep})
    table = _table("cosine at learning rate", *(f"{rate:g}" for rate in rates))
    for method in found.methods:
        cosine = {o.learning_rate: _half_width(o.cosine, 2) for o in found.sweep if o.method == method}
        table.add_row(WALKS[method].label, *(cosine.get(rate, NONE) for rate in rates))
    table.add_section()
    margins = {margin.learning_rate: margin for margin in found.margins()}
    for label, side in (("margin, others at their own", "own"), ("margin, others at this one", "same")):
        cells = {rate: _half_width(getattr(margin, side), 2, sign="+") for rate, margin in margins.items()}
        table.add_row(label, *(cells.get(rate, NONE) for rate in rates))
    table.caption = "margin: Sequential Reptile less the highest of the other methods of the paper's Figure 3"
    return table


_COST = ("drift", "steps", "ms/grad", "minutes", "peak GiB")


def _cost(results: Sequence[RunResult]) -> tuple[str, ...]:
    """Mean drift, optimizer steps, milliseconds a gradient computation and minutes; largest peak memory."""
    count = len(results)
    drift, steps = (sum(values) / count for values in ([r.drift for r in results], [r.steps for r in results]))
    milliseconds = 1000 * sum(result.step_seconds for result in results) / sum(result.budget for result in results)
    minutes = sum(result.seconds for result in results) / count / 60
    peak = max(result.peak_memory_bytes for result in results) / 2**30
    return f"{drift:.1f}", f"{steps:.0f}", f"{milliseconds:.1f}", f"{minutes:.1f}", f"{peak:.2f}"


def _macro(results: Sequence[RunResult]) -> list[str]:
    """A line with each method's macro-F1, averaged over languages and runs; none where a language has no such score."""
    if not all(MACRO in scores for run in results for scores in (run.seen | run.unseen).values()):
        return []
    said = []
    for method in dict.fromkeys(run.method for run in results):
        runs = [run for run in results if run.method == method]
        seen, unseen = (
            [mean(side, MACRO) for side in sides]
            for sides in ([run.seen for run in runs], [run.unseen for run in runs])
        )
        said.append(f"{method} {_mean(seen)} / {_mean(unseen)}")
    return [f"macro-F1, seen / unseen: {'; '.join(said)}"]


def _mean(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    return _percent(sum(found) / len(found) if found else None)


def _notes(results: Sequence[RunResult]) -> list[str]:
    """What has to be said with the scores, once a method."""
    return list(dict.fromkeys(f"{result.method}: {note}" for result in results for note in result.notes))


def _table(first: str, *columns: str) -> Table:
    """A table whose first column is text and the others are numbers."""
    table = Table(box=SIMPLE_HEAD, caption_justify="left")
    table.add_column(Text(first))
    for column in columns:
        table.add_column(Text(column), justify="left" if column in ("language", "method") else "right", no_wrap=True)
    return table


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _estimate(interval: Interval | None) -> str:
    if interval is None:
        return NONE
    return f"{interval['mean']:.1f} [{interval['low']:.1f}, {interval['high']:.1f}]"


def _half_width(interval: Interval, digits: int, sign: str = "") -> str:
    half = interval["high"] - interval["mean"]
    return f"{interval['mean']:{sign}.{digits}f}" + (f" ±{half:.{digits}f}" if half else "")


def _point(point: Sequence[float]) -> str:
    return f"({', '.join(f'{round(value, 1) + 0:g}' for value in point)})"


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval['mean']:+.1f} [{interval['low']:+.1f}, {interval['high']:+.1f}]"

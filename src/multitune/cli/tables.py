"""Results as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from multitune.commands.cache import Usage
from multitune.data.corpus import Corpus
from multitune.data.records.balance import Balance
from multitune.errors import printable
from multitune.evaluation.lengths import SAMPLE, Lengths
from multitune.experiments.synthetic import METHODS as WALKS
from multitune.experiments.synthetic import Synthetic
from multitune.pseudo_tasks import Division
from multitune.reports.papers import BASELINE
from multitune.results.comparison import Beside, Comparison, Interval, Point, Row
from multitune.results.merged import Merged
from multitune.results.probes import Findings, Skill
from multitune.results.run import SIDES, RunResult, Scores, average, mean, milliseconds_a_gradient

NONE = "-"
MACRO = "macro_f1"


def runs(results: Sequence[RunResult]) -> Table:
    """One line a run: averages, drift and cost."""
    table = _table("method", "seed", f"seen {results[0].metric}", f"unseen {results[0].metric}", *_COST)
    for result in results:
        table.add_row(result.method, str(result.seed), *map(_percent, _averages(result)), *_cost([result]))
    table.caption = _lines([*_macro(results), *_notes(results), *_untaken(results)])
    return table


def summary(comparison: Comparison) -> Table:
    """One line a method: averages and what they gain over the baseline, with intervals, drift and cost."""
    metric, gain = comparison.metric, _gain_over(comparison.baseline)
    table = _table("method", f"seen {metric}", gain, f"unseen {metric}", gain, *_COST)
    for method, sides in comparison.summary.items():
        cells = [" ".join([method, *_words(comparison.chosen[method])])]
        gains = comparison.differences.get(method)
        for side in SIDES:
            cells += [_estimate(sides[side]), _signed(gains[side] if gains else None)]
        table.add_row(*cells, *_cost([run for run in comparison.chosen_runs if run.method == method]))
    shown = (
        f"averages over languages in percent, 95 % intervals ({comparison.interval}); "
        f"{comparison.chosen_runs[0].budget} gradient computations a run, each of ms/grad milliseconds"
    )
    for method in dict.fromkeys(run.method for run in comparison.failed if run.method not in comparison.summary):
        table.add_row(method, "failed")
    chosen = comparison.chosen_runs
    failed = [f"failed, and in no figure: {run.folder}: {run.error}" for run in comparison.failed]
    table.caption = _lines([shown, *_macro(chosen), *_notes(chosen), *_untaken(comparison.runs), *failed])
    return table


def points(comparison: Comparison) -> Table:
    """One line a run of a grid; a star at the points that the summary is of."""
    metric = comparison.metric
    table = _table("", "method", *comparison.runs[0].grid, "seed", f"seen {metric}", f"unseen {metric}", *_COST)
    for run in comparison.runs:
        star = "*" if run.grid == comparison.chosen[run.method] else ""
        values = map(str, [*run.grid.values(), run.seed])
        table.add_row(star, run.method, *values, *map(_percent, _averages(run)), *_cost([run]))
    for failed in comparison.failed:
        table.add_row("", failed.method, *map(str, [*failed.grid.values(), failed.seed]), "failed")
    table.caption = "*: best on dev, shown below"
    return table


def languages(results: Sequence[RunResult]) -> Table:
    """One line a language, one column a run; seen languages first."""
    table = _table("", "language", *_names(results))
    for side in SIDES:
        for row, language in enumerate(dict.fromkeys(k for run in results for k in run.scores[side])):
            scores = [run.scores[side].get(language, {}).get(run.metric) for run in results]
            table.add_row(side if row == 0 else "", language, *(_percent(value) for value in scores))
    return table


def classes(results: Sequence[RunResult]) -> list[Table]:
    """One line a label, one column a run: its F1 on seen and on unseen languages; nothing where there are no labels."""
    names = _names(results)
    tables: list[Table] = []
    for group in dict.fromkeys(group for run in results for group in run.by_class):
        scores = [run.by_class.get(group, {}) for run in results]
        examples = {label: scored["examples"] for run in scores for label, scored in run.items()}
        table = _table("label", "examples", *names)
        for label in sorted(examples, key=lambda label: (-examples[label], label)):
            row = (_percent(run[label]["f1"]) if label in run else NONE for run in scores)
            table.add_row(label, f"{examples[label]:.0f}", *row)
        table.caption = _plain(f"F1 of each label, in percent: {group}")
        tables.append(table)
    return tables


def _names(results: Sequence[RunResult]) -> list[str]:
    """What tells runs apart in the head of a table."""
    many_seeds = len({result.seed for result in results}) > 1
    return [f"{run.method} {run.seed}" if many_seeds else run.method for run in results]


def beside(comparison: Beside) -> Table:
    """One line a language, one column a method: our score, and the paper's in brackets."""

    def cells(row: Row, sign: str = "") -> list[str]:
        pairs = [row.get(method) for method in comparison.mean]
        return [f"{_percent(pair.ours, sign)} ({_percent(pair.paper, sign)})" if pair else "" for pair in pairs]

    table = _table("language", *comparison.mean)
    for language, row in comparison.languages.items():
        table.add_row(language, *cells(row))
    table.add_section()
    table.add_row(f"mean of {len(comparison.languages)}", *cells(comparison.mean))
    if comparison.gains:
        table.add_row(_gain_over(BASELINE), *cells(comparison.gains, "+"))
    table.caption = f"{comparison.metric}, in brackets the Sequential Reptile paper's: {comparison.title}"
    return table


def scores(results: Scores) -> Table:
    """One line a language, one column a metric."""
    metrics = list(next(iter(results.values())))
    table = _table("language", *metrics)
    for language, measured in results.items():
        table.add_row(language, *(_percent(measured[metric]) for metric in metrics))
    return table


def probes(findings: Findings) -> list[Table]:
    """Cosines of languages' gradients; cosine and drift by layer; what is left of pretraining."""
    return [*_cosines(findings), _by_layer(findings), _skills(findings)]


def _cosines(findings: Findings) -> list[Table]:
    similarity, proximity = findings.gradient_similarity, findings.proximity
    if similarity is None:
        return []
    table = _table("cosine of gradients", *similarity.languages)
    for language, row in zip(similarity.languages, similarity.cosines, strict=True):
        table.add_row(language, *(f"{cosine:.2f}" for cosine in row))
    table.caption = f"held-out batches, languages by family; mean {similarity.cosine:.2f}"
    if proximity is not None:
        table.caption += f"; with genealogical distance: Spearman {proximity.spearman:+.2f}, p = {proximity.p:.3f}"
    return [table]


def _by_layer(findings: Findings) -> Table:
    table = _table("layer", "mean cosine", "drift")
    cosines = findings.gradient_similarity.cosine_by_layer if findings.gradient_similarity else {}
    drift = findings.drift.layers
    for layer in cosines or drift:
        table.add_row(layer, _number(cosines.get(layer)), _number(drift.get(layer)))
    return table


def _labelled_skills(findings: Findings) -> dict[str, Skill | None]:
    return {"masked token, nats": findings.masked_lm, "translation found, %": findings.retrieval}


def _skills(findings: Findings) -> Table:
    table = _table("retention", "seen before", "after", "unseen before", "after")
    for label, skill in _labelled_skills(findings).items():
        averages = [skill.average[side] for side in SIDES] if skill else []
        cells = [_number(value) for average in averages for value in (average.pretrained, average.tuned)]
        table.add_row(label, *(cells or [NONE] * 4))
    table.caption = _lines(findings.notes)
    return table


def retention(findings: Findings) -> Table:
    """One line a language: its skills with the pretrained and with the tuned weights."""
    skills = {label: skill for label, skill in _labelled_skills(findings).items() if skill is not None}
    table = _table("", "language", *(f"{label}: {when}" for label in skills for when in ("before", "after")))
    for side, languages in (("seen", findings.seen), ("unseen", findings.unseen)):
        for row, language in enumerate(languages):
            values = [each.get(language) for skill in skills.values() for each in (skill.pretrained, skill.tuned)]
            table.add_row(side if row == 0 else "", language, *(_number(value) for value in values))
    return table


def counts(corpus: Corpus, lengths: Mapping[str, Lengths], max_length: int) -> Table:
    """Records by language and split, and their lengths in tokens."""
    table = _table("language", "train", "dev", "test", "left out", "bad", "tokens", "95 %", f"% over {max_length}")
    for language in corpus.test:
        splits = (corpus.train, corpus.dev, corpus.test)
        sizes = [str(len(split[language])) if language in split else NONE for split in splits]
        gone = (str(corpus.dropped.get(language, 0)), str(corpus.skipped.get(language, 0)))
        length = lengths.get(language)
        tokens = (
            [NONE] * 3
            if length is None
            else [f"{length.mean:.1f}", f"{length.percentile_95:.0f}", f"{length.over:.1f}"]
        )
        table.add_row(language, *sizes, *gone, *tokens)
    kind = (
        "heads of their own"
        if corpus.heads
        else corpus.task + (f", {len(corpus.labels)} labels" if corpus.labels else "")
    )
    dev = "test is dev; " if corpus.test_is_dev else ""
    table.caption = (
        f"{kind}; {dev}left out: labels: ignores all that they have;\n"
        f"tokens: mean and 95th percentile of at most {SAMPLE} records a split"
    )
    return table


def labels(balance: Sequence[Balance]) -> Table:
    """One line a label: how often it is in training, and the languages where its share is least and most."""
    table = _table("label", "in training", "%", "least %", "most %")
    for row in balance:
        least, most = (f"{share:.1f} {language}" for share, language in (row.least, row.most))
        table.add_row(row.label, str(row.times), f"{row.share:.1f}", least, most)
    return table


def clusters(division: Division) -> Table:
    """One line a pseudo-task: its records, their most frequent label and their words."""
    description = division.description
    table = _table("pseudo-task", "train", "%", "dev", "most frequent label")
    table.add_column("words", overflow="fold")
    for cluster in description.clusters:
        label = next((f"{label} {percent:.1f} %" for label, percent in cluster.labels.items()), NONE)
        dev = len(division.dev.get(cluster.task, ()))
        numbers = (str(cluster.records), f"{cluster.percent:.1f}", str(dev))
        table.add_row(cluster.task, *numbers, label, " ".join(cluster.words))
    table.caption = (
        "of the records that train_limit and dev_limit leave; the principal components keep "
        f"{description.variance:.1f} % of the variance"
    )
    return table


def merged(found: Merged) -> Table:
    """One line a point, a star at the chosen one; then the runs as their own results have them."""
    table = _table("", "weight", "dev", f"seen {found.metric}", f"unseen {found.metric}", "drift")
    for point in found.points:
        star = "*" if point.weight == found.chosen else ""
        sides = (point.average.seen, point.average.unseen)
        table.add_row(star, f"{point.weight:g}", *map(_percent, (point.dev, *sides, point.drift)))
    table.add_section()
    for run in found.runs:
        sides = (run.average.seen, run.average.unseen)
        table.add_row(f"{run.method} {run.seed}", NONE, *map(_percent, (run.dev, *sides)), NONE)
    shown = "averages over languages in percent; weight 1: the runs' mean"
    table.caption = _lines([f"{shown}; *: best on dev, written", *found.notes])
    return table


def _words(point: Point) -> list[str]:
    return [f"{key}={value}" for key, value in point.items()]


def cache(uses: Sequence[Usage]) -> Table:
    """One line a use: entries, size, last use."""
    table = _table("use", "entries", "MB", "last used")
    for use in uses:
        table.add_row(Text(use.use), str(use.entries), megabytes(use.size), f"{use.last:%Y-%m-%d}")
    table.add_section()
    table.add_row("all", str(sum(use.entries for use in uses)), megabytes(sum(use.size for use in uses)), "")
    return table


def megabytes(size: int) -> str:
    """Bytes in units of a million."""
    return f"{size / 1e6:.1f}"


def synthetic(results: Synthetic) -> Table:
    """One line a method and start: where it ends, and the loss and cosine there."""
    table = _table("start", "method", "learning rate", "end", "to an optimum", "MTL loss", "cosine")
    for start in dict.fromkeys(walk.start for walk in results.walks if walk.start):
        for row, walk in enumerate(results.of_figures(start)):
            assert walk.end is not None
            table.add_row(
                "" if row else _point(start),
                WALKS[walk.method].label,
                f"{walk.learning_rate:g}",
                _point(walk.end),
                f"{walk.distance.mean:.1f}",
                _half_width(walk.loss, 0),
                _half_width(walk.cosine, 2),
            )
        table.add_section()
    table.caption = (
        "end: of the first seed's walk; distance to the nearest optimum, MTL loss and mean pairwise cosine: averages "
        "over the last quarter of the walks, with 95 % intervals over seeds where tasks are drawn"
    )
    return table


def synthetic_sweep(results: Synthetic) -> Table:
    """One line a method: its cosine at each learning rate, over all starts; then how far Figure 3's ordering holds."""
    rates = sorted({outcome.learning_rate for outcome in results.sweep})
    table = _table("cosine at learning rate", *(f"{rate:g}" for rate in rates))
    for method in results.methods:
        cosine = {o.learning_rate: _half_width(o.cosine, 2) for o in results.sweep if o.method == method}
        table.add_row(WALKS[method].label, *(cosine.get(rate, NONE) for rate in rates))
    table.add_section()
    margins = {margin.learning_rate: margin for margin in results.margins()}
    for label, side in (("margin, others at their own", "own"), ("margin, others at this one", "same")):
        cells = {rate: _half_width(getattr(margin, side), 2, sign="+") for rate, margin in margins.items()}
        table.add_row(label, *(cells.get(rate, NONE) for rate in rates))
    table.caption = "margin: Sequential Reptile less the highest of the other methods of the paper's Figure 3"
    return table


def _untaken(results: Sequence[RunResult]) -> list[str]:
    """Steps that runs were to take and did not."""
    notes = []
    for result in results:
        run = f"{result.method} seed {result.seed}"
        if result.skipped_steps:
            steps = result.skipped_steps + result.steps
            notes.append(f"{run}: {result.skipped_steps} of {steps} steps skipped, a loss or gradient was not finite")
        if result.untrained:
            notes.append(f"{run}: never trained on {', '.join(result.untrained)}")
    return notes


_COST = ("drift", "steps", "ms/grad", "minutes", "peak GiB")


def _cost(results: Sequence[RunResult]) -> tuple[str, ...]:
    """Mean drift, optimizer steps, milliseconds a gradient computation and minutes; largest peak memory."""
    minutes = sum(result.seconds for result in results) / len(results) / 60
    gibibytes = max(result.peak_memory_bytes for result in results) / 2**30
    return (
        _percent(mean(result.drift for result in results)),
        _number(mean(result.steps for result in results), 0),
        _number(milliseconds_a_gradient(results), 1),
        f"{minutes:.1f}",
        f"{gibibytes:.2f}",
    )


def _macro(results: Sequence[RunResult]) -> list[str]:
    """A line with each method's macro-F1, averaged over languages and runs; none where a language has no such score."""
    if not all(MACRO in own for run in results for side in SIDES for own in run.scores[side].values()):
        return []
    said = []
    for method in dict.fromkeys(run.method for run in results):
        runs = [run for run in results if run.method == method]
        means = (mean(average(run.scores[side], MACRO) for run in runs) for side in SIDES)
        said.append(f"{method} {' / '.join(map(_percent, means))}")
    return [f"macro-F1, seen / unseen: {'; '.join(said)}"]


def _notes(results: Sequence[RunResult]) -> list[str]:
    """What has to be said with the scores, once a method."""
    return list(dict.fromkeys(f"{result.method}: {note}" for result in results for note in result.notes))


def _gain_over(baseline: str) -> str:
    return f"gain over {baseline}"


def _averages(result: RunResult) -> tuple[float | None, float | None]:
    return result.average.seen, result.average.unseen


class _PlainTable(Table):
    """A table whose cells are text: names and labels come from files, and may hold markup or escapes."""

    def add_row(self, *cells: RenderableType | None, **style: Any) -> None:
        """Add a row; a cell that is a string has neither markup nor control characters."""
        super().add_row(*(_plain(cell) if isinstance(cell, str) else cell for cell in cells), **style)


def _plain(text: str) -> Text:
    return Text(printable(text))


def _lines(lines: Sequence[str]) -> Text:
    return Text("\n".join(map(printable, lines)))


def _table(first: str, *columns: str) -> _PlainTable:
    """A table whose first column is text and the others are numbers."""
    table = _PlainTable(box=SIMPLE_HEAD, caption_justify="left")
    table.add_column(_plain(first))
    for column in columns:
        table.add_column(_plain(column), justify="left" if column in ("language", "method") else "right", no_wrap=True)
    return table


def _percent(value: float | None, sign: str = "") -> str:
    return _number(value, 1, sign)


def _number(value: float | None, digits: int = 2, sign: str = "") -> str:
    return NONE if value is None else f"{value:{sign}.{digits}f}"


def _estimate(interval: Interval | None) -> str:
    if interval is None:
        return NONE
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _half_width(interval: Interval, digits: int, sign: str = "") -> str:
    half = interval.high - interval.mean
    return f"{interval.mean:{sign}.{digits}f}" + (f" ±{half:.{digits}f}" if half else "")


def _point(point: Sequence[float]) -> str:
    return f"({', '.join(f'{round(value, 1) + 0:g}' for value in point)})"


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"

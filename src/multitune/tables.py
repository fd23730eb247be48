"""Results as tables for the terminal."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from multitune.comparison import Comparison
from multitune.data import Corpus
from multitune.data.balance import Balance
from multitune.experiments.synthetic import METHODS as WALKS
from multitune.experiments.synthetic import Synthetic
from multitune.intervals import Interval
from multitune.lengths import SAMPLE, Lengths
from multitune.methods import Plan
from multitune.results import RunResult, Scores

NONE = "-"


def runs(results: Sequence[RunResult]) -> Table:
    """One line a run: averages, drift and cost."""
    table = _table("method", "seed", f"seen {results[0].metric}", f"unseen {results[0].metric}", *_COST)
    for result in results:
        average = (_percent(result.average["seen"]), _percent(result.average["unseen"]))
        table.add_row(result.method, str(result.seed), *average, *_cost([result]))
    return table


def summary(comparison: Comparison) -> Table:
    """One line a method: averages and what they differ from the baseline, with intervals, drift and cost."""
    metric, baseline = comparison.metric, comparison.baseline
    table = _table("method", f"seen {metric}", f"- {baseline}", f"unseen {metric}", f"- {baseline}", *_COST)
    for method, sides in comparison.summary.items():
        cells = [method]
        for side in ("seen", "unseen"):
            difference = comparison.differences.get(method, {}).get(side)
            cells += [_estimate(sides[side]), _signed(difference)]
        table.add_row(*cells, *_cost([run for run in comparison.runs if run.method == method]))
    table.caption = (
        f"averages over languages in percent, 95 % intervals ({comparison.interval}); "
        f"{comparison.runs[0].budget} gradient computations a run"
    )
    return table


def languages(results: Sequence[RunResult]) -> Table:
    """One line a language, one column a run; seen languages first."""
    many_seeds = len({result.seed for result in results}) > 1
    names = [f"{run.method} {run.seed}" if many_seeds else run.method for run in results]
    table = _table("", "language", *names)
    for side in ("seen", "unseen"):
        for row, language in enumerate(dict.fromkeys(k for run in results for k in getattr(run, side))):
            found = [getattr(run, side).get(language, {}).get(run.metric) for run in results]
            table.add_row(side if row == 0 else "", language, *(_percent(value) for value in found))
    return table


def scores(results: Scores) -> Table:
    """One line a language, one column a metric."""
    metrics = list(next(iter(results.values())))
    table = _table("language", *metrics)
    for language, found in results.items():
        table.add_row(language, *(_percent(found[metric]) for metric in metrics))
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


def methods(plans: Mapping[str, type[Plan]]) -> Table:
    """Name, one line, paper and options of each method."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("method", "what it does, and its paper", "options=default"):
        table.add_column(column, overflow="fold", no_wrap=column == "method")
    for name, plan in plans.items():
        about = Text.assemble(plan.summary, "\n", (plan.paper, "dim"))
        table.add_row(name, about, " ".join(_option(key, field.default) for key, field in plan.model_fields.items()))
    return table


def _option(key: str, default: object) -> str:
    return f"{key}={'null' if default is None else default}"


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


_COST = ("drift", "minutes", "peak GiB")


def _cost(results: Sequence[RunResult]) -> tuple[str, str, str]:
    """Mean drift and minutes, largest peak memory."""
    count = len(results)
    drift = sum(result.drift for result in results) / count
    minutes = sum(result.seconds for result in results) / count / 60
    return f"{drift:.1f}", f"{minutes:.1f}", f"{max(result.peak_memory_bytes for result in results) / 2**30:.2f}"


def _table(first: str, *columns: str) -> Table:
    """A table whose first column is text and the others are numbers."""
    table = Table(box=SIMPLE_HEAD, caption_justify="left")
    table.add_column(Text(first))
    for column in columns:
        table.add_column(Text(column), justify="left" if column in ("language", "method") else "right", no_wrap=True)
    return table


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


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

"""Results of runs and comparisons as tables."""

from collections.abc import Sequence

from multitune.cli.sheet import NONE, Beside, Column, Estimate, Number, Sheet, Words
from multitune.commands.runs import Listed
from multitune.reports.papers import BASELINE
from multitune.results import comparison as compared
from multitune.results.comparison import Comparison, Row
from multitune.results.decimals import decimals
from multitune.results.falling import gain, rank
from multitune.results.merged import Merged
from multitune.results.run import SIDES, RunResult, Score, Scores, average, mean, milliseconds_a_gradient
from multitune.results.sweep import Sweep

MACRO = "macro_f1"

METHOD = Column("method", text=True)
LANGUAGE = Column("language", text=True)
SIDE = Column("side", "", text=True, once=True)
COST = (
    Column("drift", cost=True),
    Column("steps", cost=True),
    Column("ms_per_gradient", "ms/grad", cost=True),
    Column("minutes", cost=True),
    Column("peak_gib", "peak GiB", cost=True),
)


def runs(results: Sequence[RunResult]) -> Sheet:
    """One line a run: averages, drift and cost."""
    sheet = Sheet("runs", [METHOD, Column("seed"), *_averages_of(results[0].metric), *COST])
    for result in results:
        sheet.add(result.method, result.seed, *_averages(result), *_cost([result]))
    sheet.notes = [*_macro(results), *_notes(results), *_untaken(results)]
    return sheet


def listed(runs: Sequence[Listed]) -> Sheet:
    """One line a run of a folder, finished or not: its scores."""
    names = (Column("run", text=True), Column("method", text=True), Column("metric", text=True))
    sheet = Sheet("runs", [*names, *map(Column, SIDES), Column("budget", cost=True), *COST])
    for each in runs:
        if (result := each.result) is None:
            sheet.add(each.folder, "not finished", NONE, *(None for _ in (*SIDES, "budget", *COST)))
        else:
            own = (result.method, result.metric, *_averages(result), result.budget)
            sheet.add(each.folder, *own, *_cost([result]))
    return sheet


def summary(comparison: Comparison) -> Sheet:
    """One line a method: averages and what they gain over the baseline, with intervals, drift and cost."""
    gain = _gain_over(comparison.baseline)
    seen, unseen = _averages_of(comparison.metric)
    gains_of = (Column(f"{side}_gain", gain, beside=True) for side in SIDES)
    sheet = Sheet("summary", [METHOD, seen, next(gains_of), unseen, next(gains_of), *COST])
    shown_to = decimals(comparison.metric)
    for method, sides in comparison.summary.items():
        gains = comparison.differences.get(method)
        estimates = (
            Estimate(interval, sign, none, shown_to)
            for side in SIDES
            for interval, sign, none in ((sides[side], "", NONE), (gains[side] if gains else None, "+", ""))
        )
        own = [run for run in comparison.chosen_runs if run.method == method]
        sheet.add(Words(method, comparison.chosen[method]), *estimates, *_cost(own))
    for method in dict.fromkeys(run.method for run in comparison.failed if run.method not in comparison.summary):
        sheet.add(method, "failed", *(None for _ in (gain, unseen, gain, *COST)))
    spent = sorted(run.spent for run in comparison.chosen_runs)
    cost = " to ".join(map(str, dict.fromkeys((spent[0], spent[-1]))))
    shown = (
        f"averages over languages in percent, 95 % intervals ({comparison.interval}); "
        f"{cost} gradient computations a run, each of ms/grad milliseconds"
    )
    chosen = comparison.chosen_runs
    failed = [f"failed, and in no figure: {run.folder}: {run.error}" for run in comparison.failed]
    sheet.notes = [shown, *_macro(chosen), *_notes(chosen), *_untaken(comparison.runs), *failed]
    return sheet


def points(comparison: Comparison) -> Sheet:
    """One line a run of a grid; a star at the points that the summary is of."""
    columns = [Column("chosen", "", text=True), METHOD, Column("seed"), *_averages_of(comparison.metric), *COST]
    sheet = Sheet("grid", columns, leading=3)
    for run in comparison.runs:
        star = "*" if run.grid == comparison.chosen[run.method] else ""
        sheet.add(star, Words(run.method, run.grid), run.seed, *_averages(run), *_cost([run]))
    for failed in comparison.failed:
        cost = (None for _ in COST)
        sheet.add("", Words(failed.method, failed.grid), failed.seed, "failed", None, *cost)
    sheet.notes = ["*: best on dev, shown below"]
    return sheet


def rungs(found: Sweep) -> Sheet:
    """One line a point and rung of a sweep, the best of each rung first; a star at those that go on."""
    columns = [Column("rung"), Column("budget"), Column("kept", "", text=True), Column("point", text=True)]
    sheet = Sheet("rungs", [*columns, Column("dev", f"dev {found.metric}")], leading=4)
    for number, rung in enumerate(found.rungs, 1):
        for point in rung.points:
            keys = "-".join(f"{key}={value}" for key, value in point.grid.items())
            sheet.add(number, rung.budget, "*" if point.kept else "", keys, Number(point.dev, decimals(found.metric)))
    share = found.gradients / found.full_grid
    sheet.notes = [
        f"{found.method}; dev in percent, the mean over {found.seeds} seeds" if found.seeds > 1 else found.method,
        "*: goes on to the next rung, and in the last one wins",
        f"{found.gradients} gradient computations, {share:.0%} of the whole grid's {found.full_grid}",
    ]
    return sheet


def languages(results: Sequence[RunResult], baseline: str | None = None) -> Sheet:
    """One line a language, one column a method: the seen languages, then the unseen ones, each by gain.

    Args:
        results: the runs; those of one method are averaged.
        baseline: the method that gains are over; they are those of the method that is best on seen languages. Without
            another method languages stand by score.
    """
    methods = list(dict.fromkeys(run.method for run in results))
    best = _best_but(baseline, results)
    head = "gain" if len(methods) == 2 else f"gain of {best}"
    columns = [] if best is None else [Column("gain", head)]
    sheet = Sheet("languages", [SIDE, LANGUAGE, *map(Column, methods), *columns], leading=2)
    metric, shown_to = results[0].metric, decimals(results[0].metric)
    for side in SIDES:
        rows = {k: _means(results, k) for k in dict.fromkeys(k for run in results for k in run.scores[side])}
        gains = {} if best is None else {k: gain(metric, own[best], own[baseline or ""]) for k, own in rows.items()}
        order = {k: rank(metric, own[methods[0]]) for k, own in rows.items()} if best is None else gains
        for k in sorted(rows, key=lambda k: -_or_last(order[k])):
            gained = [] if best is None else [Number(gains[k], shown_to, "+")]
            sheet.add(side, k, *(Number(score, shown_to) for score in rows[k].values()), *gained)
        sheet.rule()
    seeds = {run.seed for run in results}
    sheet.notes = [f"means over {len(seeds)} seeds"] if len(seeds) > 1 else []
    return sheet


def _means(results: Sequence[RunResult], language: str) -> dict[str, Score]:
    """Method -> its main score in a language, averaged over its runs."""
    scores: dict[str, list[Score]] = {run.method: [] for run in results}
    for run in results:
        scores[run.method].append((run.seen | run.unseen).get(language, {}).get(run.metric))
    return {method: mean(own) for method, own in scores.items()}


def _best_but(baseline: str | None, results: Sequence[RunResult]) -> str | None:
    """The method that is best on seen languages, the baseline left out; None without another, or without a baseline."""
    others = dict.fromkeys(run.method for run in results if run.method != baseline)
    if baseline is None or not others:
        return None
    seen = {name: mean(run.average.seen for run in results if run.method == name) for name in others}
    return max(others, key=lambda name: rank(results[0].metric, seen[name]))


def _or_last(score: Score) -> float:
    """A score to sort by; below every other where it is not finite."""
    return float("-inf") if score is None else score


def classes(results: Sequence[RunResult]) -> list[Sheet]:
    """One line a label, one column a run: its F1 on seen and on unseen languages; nothing where there are no labels."""
    columns = [Column("label", text=True), Column("examples"), *map(Column, _names(results))]
    sheets: list[Sheet] = []
    for group in dict.fromkeys(group for run in results for group in run.by_class):
        scores = [run.by_class.get(group, {}) for run in results]
        examples = {label: scored["examples"] for run in scores for label, scored in run.items()}
        sheet = Sheet(f"classes: {group}", columns)
        for label in sorted(examples, key=lambda label: (-examples[label], label)):
            sheet.add(label, int(examples[label]), *(Number(run.get(label, {}).get("f1"), 1) for run in scores))
        sheet.notes = [f"F1 of each label, in percent: {group}"]
        sheets.append(sheet)
    return sheets


def _names(results: Sequence[RunResult]) -> list[str]:
    """What tells runs apart in the head of a table."""
    many_seeds = len({result.seed for result in results}) > 1
    return [f"{run.method} {run.seed}" if many_seeds else run.method for run in results]


def beside(comparison: compared.Beside) -> Sheet:
    """One line a language, one column a method: our score, and the paper's in brackets."""

    def cells(row: Row, sign: str = "") -> list[Beside]:
        return [Beside(row.get(method), sign) for method in comparison.mean]

    sheet = Sheet(f"{comparison.table}: {comparison.metric}", [LANGUAGE, *map(Column, comparison.mean)])
    for language, row in comparison.languages.items():
        sheet.add(language, *cells(row))
    sheet.rule()
    sheet.add(f"mean of {len(comparison.languages)}", *cells(comparison.mean))
    if comparison.gains:
        sheet.add(_gain_over(BASELINE), *cells(comparison.gains, "+"))
    sheet.notes = [f"{comparison.metric}, in brackets the Sequential Reptile paper's: {comparison.title}"]
    return sheet


def scores(results: Scores, run: RunResult | None = None) -> Sheet:
    """One line a language, one column a metric: the languages that a run has seen, then the others, each by score."""
    metrics = list(dict.fromkeys(metric for measured in results.values() for metric in measured))
    main = metrics[0] if run is None else run.metric
    seen = [] if run is None else [k for k in results if k in run.seen]
    sheet = Sheet("scores", [*([SIDE] if seen else []), LANGUAGE, *map(Column, metrics)], leading=2 if seen else 1)
    for side, own in (("seen", seen), ("unseen", [k for k in results if k not in seen])):
        for k in sorted(own, key=lambda k: -rank(main, results[k].get(main))):
            sheet.add(*([side] if seen else []), k, *(Number(results[k].get(m), decimals(m)) for m in metrics))
        sheet.rule()
    return sheet


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


def _cost(results: Sequence[RunResult]) -> tuple[Number, ...]:
    """Mean drift, optimizer steps, milliseconds a gradient computation and minutes; largest peak memory."""
    minutes = sum(result.seconds for result in results) / len(results) / 60
    gibibytes = max(result.peak_memory_bytes for result in results) / 2**30
    return (
        Number(mean(result.drift for result in results), 1),
        Number(mean(result.steps for result in results), 0),
        Number(milliseconds_a_gradient(results), 1),
        Number(minutes, 1),
        Number(gibibytes, 2),
    )


def _macro(results: Sequence[RunResult]) -> list[str]:
    """A line with each method's macro-F1, averaged over languages and runs; none where a language has no such score."""
    if not all(MACRO in own for run in results for side in SIDES for own in run.scores[side].values()):
        return []
    said = []
    for method in dict.fromkeys(run.method for run in results):
        runs = [run for run in results if run.method == method]
        means = (Number(mean(average(run.scores[side], MACRO) for run in runs), 1).beside() for side in SIDES)
        said.append(f"{method} {' / '.join(means)}")
    return [f"macro-F1, seen / unseen: {'; '.join(said)}"]


def _notes(results: Sequence[RunResult]) -> list[str]:
    """What has to be said with the scores, once a method."""
    return list(dict.fromkeys(f"{result.method}: {note}" for result in results for note in result.notes))


def _gain_over(baseline: str) -> str:
    return f"gain over {baseline}"


def _averages_of(metric: str) -> tuple[Column, Column]:
    return Column(f"seen_{metric}", f"seen {metric}"), Column(f"unseen_{metric}", f"unseen {metric}")


def _averages(result: RunResult) -> tuple[Number, Number]:
    digits = decimals(result.metric)
    return Number(result.average.seen, digits), Number(result.average.unseen, digits)


def merged(result: Merged) -> Sheet:
    """One line a point, a star at the chosen one; then the runs as their own results have them."""
    columns = [Column("chosen", "", text=True), Column("weight"), Column("dev"), *_averages_of(result.metric)]
    sheet, digits = Sheet("merged", [*columns, Column("drift", cost=True)], leading=2), decimals(result.metric)
    for point in result.points:
        star = "*" if point.weight == result.chosen else ""
        scores = (point.dev, point.average.seen, point.average.unseen)
        sheet.add(star, f"{point.weight:g}", *(Number(score, digits) for score in scores), Number(point.drift, 1))
    sheet.rule()
    for run in result.runs:
        scores = (run.dev, run.average.seen, run.average.unseen)
        sheet.add(f"{run.method} {run.seed}", None, *(Number(score, digits) for score in scores), None)
    shown = "averages over languages in percent; weight 1: the runs' mean; *: best on dev, written"
    sheet.notes = [shown, *result.notes]
    return sheet

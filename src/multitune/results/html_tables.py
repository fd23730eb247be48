"""Scores as HTML tables: what a notebook shows of a result. All that is written in is escaped."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from multitune.results.decimals import decimals
from multitune.results.falling import rank

if TYPE_CHECKING:
    from multitune.results.comparison import Comparison, Interval
    from multitune.results.run import RunResult, Score

NONE = "–"
"""What is shown where there is no score."""


def of_run(result: "RunResult") -> str:
    """A row for the average of each side, then one for each of its languages, the best first; a column a metric."""
    sides = (("seen", result.seen, result.average.seen), ("unseen", result.unseen, result.average.unseen))
    metrics = list(dict.fromkeys(metric for _, scores, _ in sides for own in scores.values() for metric in own))
    metrics = [result.metric, *(metric for metric in metrics if metric != result.metric)]
    rows = []
    for side, scores, average in sides:
        if scores:
            digits = decimals(result.metric)
            rows.append([f"{side}, mean of {len(scores)}", _number(average, digits), *[""] * (len(metrics) - 1)])
            rows += [
                [language, *(_number(scores[language].get(metric), decimals(metric)) for metric in metrics)]
                for language in sorted(scores, key=lambda k: -rank(result.metric, scores[k].get(result.metric)))
            ]
    caption = f"{result.method}, seed {result.seed}, {result.spent} gradient computations; scores in percent"
    return _table(caption, ["language", *metrics], rows)


def of_comparison(comparison: "Comparison") -> str:
    """A row a method: its averages with their intervals, and what it gains over the baseline."""
    gain = f"gain over {comparison.baseline}"
    head = ["method", f"seen {comparison.metric}", gain, f"unseen {comparison.metric}", gain]
    rows, digits = [], decimals(comparison.metric)
    for method, means in comparison.summary.items():
        gains = comparison.differences.get(method)
        seen = [_estimate(means.seen, digits), "" if gains is None else _estimate(gains.seen, digits, "+")]
        unseen = [_estimate(means.unseen, digits), "" if gains is None else _estimate(gains.unseen, digits, "+")]
        rows.append([method, *seen, *unseen])
    rows += [[failed.method, f"failed: {failed.error}", "", "", ""] for failed in comparison.failed]
    caption = f"averages over languages in percent, 95 % intervals ({comparison.interval})"
    return _table(caption, head, rows)


def _number(score: "Score", digits: int = 1) -> str:
    return NONE if score is None else f"{score:.{digits}f}"


def _estimate(interval: "Interval | None", digits: int, sign: str = "") -> str:
    if interval is None:
        return NONE
    mean, low, high = (f"{n:{sign}.{digits}f}" for n in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def row(tag: str, cells: Sequence[str]) -> Markup:
        made = Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(tag), cell) for cell in cells)
        return Markup("<tr>{}</tr>").format(made)

    body = Markup("").join(row("td", cells) for cells in rows)
    table = Markup("<table><caption>{}</caption><thead>{}</thead><tbody>{}</tbody></table>")
    return str(table.format(caption, row("th", head), body))

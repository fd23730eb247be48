"""The tables of the Sequential Reptile paper, to stand beside our own figures.

Lee et al., "Sequential Reptile: Inter-Task Gradient Alignment for Multilingual Learning", ICLR 2022 (arXiv
2110.02600), Tables 1 to 5, 9 and 10.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from multitune.errors import UserError, unknown
from multitune.results.comparison import Beside, Pair
from multitune.results.run import RunResult, Scores, mean

BASELINE = "mtl"
"""The method that the paper's are compared with."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, figures in percent.

    Attributes:
        sets: the data sets, any of them, that its columns are languages or tasks of.
        metrics: what each cell has one figure of, in their order.
        scores: method -> language or task -> its figures.
    """

    title: str
    sets: Sequence[str]
    metrics: Sequence[str]
    scores: Mapping[str, Mapping[str, Sequence[float]]]


@cache
def find(name: str) -> PaperTable:
    """A table by its name, e.g. ``table2``.

    Raises:
        UserError: there is none of that name.
    """
    tables = json.loads(files("multitune.reports").joinpath("paper_tables.json").read_text(encoding="utf-8"))
    if name not in tables:
        raise UserError(f"--paper: {unknown('table', name, tables)}")
    return PaperTable(**tables[name])


def columns(name: str, data: str, metric: str, methods: Iterable[str], languages: Iterable[str]) -> dict[str, str]:
    """The languages (or tasks) of runs on a data set that a table has -> its column for each.

    Args:
        name: of the table.
        data: the data set; languages of others have their set's name before them, ``mlqa:de``.
        metric: the main one of the runs.
        methods: of the runs.
        languages: that the runs are tested on.

    Raises:
        UserError: there is no such table, or it has nothing of that metric, those methods or those languages.
    """
    table = find(name)
    known = {language for row in table.scores.values() for language in row}
    tested = {language: language.rpartition(":") for language in languages}
    shared = {language: code for language, (other, _, code) in tested.items() if (other or data) in table.sets}
    common = {language: code for language, code in shared.items() if code in known}
    if not common:
        where = f"{' or '.join(table.sets)} ({', '.join(sorted(known))})"
        raise UserError(f"--paper {name}: has figures on {where}; none is tested here")
    if table.scores.keys().isdisjoint(methods):
        raise UserError(f"--paper {name}: has figures of {', '.join(table.scores)}; none is run here")
    if metric not in table.metrics:
        raise UserError(f"--paper {name}: has figures in {', '.join(table.metrics)}; here it is {metric}")
    return common


def beside(name: str, data: str, results: Sequence[RunResult]) -> list[Beside]:
    """Finished runs on a data set beside a table, once for each of its metrics; means over seeds.

    Raises:
        UserError: as ``columns`` does.
    """
    table = find(name)
    runs = {method: [run for run in results if run.method == method] for method in table.scores}
    scores = {method: [run.seen | run.unseen for run in own] for method, own in runs.items() if own}
    tested = [each for own in scores.values() for each in own]
    languages = [language for run in results for language in run.seen | run.unseen]
    everywhere = [language for language in dict.fromkeys(languages) if all(language in each for each in tested)]
    common = columns(name, data, results[0].metric, [run.method for run in results], everywhere)
    return [_in_metric(name, metric, scores, common) for metric in table.metrics]


def _in_metric(name: str, metric: str, scores: Mapping[str, Sequence[Scores]], common: Mapping[str, str]) -> Beside:
    table = find(name)
    number = table.metrics.index(metric)
    rows = {
        language: {
            method: Pair(ours=mean(each[language][metric] for each in own), paper=table.scores[method][column][number])
            for method, own in scores.items()
        }
        for language, column in common.items()
    }
    means = {method: _mean([row[method] for row in rows.values()]) for method in scores}
    others = [method for method in scores if method != BASELINE and BASELINE in scores]
    gains = {method: _gain(means[method], means[BASELINE]) for method in others}
    return Beside(name, table.title, metric, rows, means, gains)


def _mean(pairs: Sequence[Pair]) -> Pair:
    return Pair(ours=mean(pair.ours for pair in pairs), paper=sum(pair.paper for pair in pairs) / len(pairs))


def _gain(pair: Pair, over: Pair) -> Pair:
    ours = None if pair.ours is None or over.ours is None else pair.ours - over.ours
    return Pair(ours=ours, paper=pair.paper - over.paper)

"""Scores by language, relatives together; and how near each language is to those seen in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from multitune.probes import genealogy, typology
from multitune.probes.typology import Likeness
from multitune.reports.evidence import Evidence, FinishedRun
from multitune.results.falling import gain
from multitune.results.run import SIDES, Side, mean

Score = float | None


@dataclass(frozen=True)
class LanguageLine:
    """A language: method -> its score, the mean over seeds; ``gain`` is what the leader is ahead of the baseline."""

    language: str
    side: Side
    scores: Mapping[str, Score]
    gain: Score


@dataclass(frozen=True)
class LanguageGroup:
    """Languages of one family in one script, None where they are not known; and the means over them."""

    family: str | None
    script: str | None
    lines: Sequence[LanguageLine]
    means: Mapping[str, Score]
    gain: Score

    @property
    def title(self) -> str:
        """Family and script."""
        return ", ".join(part for part in (self.family, self.script) if part) or "Others"


@dataclass(frozen=True)
class Relative:
    """A language seen in training, as seen from another.

    Attributes:
        genealogical: distance in the family tree, 1 of unrelated ones; None where one is not in the table.
        typological: None without the data, or where they lack one of the languages.
    """

    language: str
    genealogical: Score
    typological: Likeness | None


@dataclass(frozen=True)
class Nearest:
    """The seen languages that are nearest to a language, in the family tree and in grammar and sounds."""

    line: LanguageLine
    in_tree: Relative | None
    in_typology: Relative | None


def groups(evidence: Evidence, leader: str) -> list[LanguageGroup]:
    """All languages by family and script; those of unknown family last."""
    lines = sorted(language_lines(evidence, leader), key=_relatives)
    return [_group(list(members), evidence.methods) for _, members in groupby(lines, key=_relatives)]


def language_lines(evidence: Evidence, leader: str) -> list[LanguageLine]:
    """Every language with every method's score, the seen ones first."""
    baseline = evidence.comparison.baseline if evidence.comparison else leader
    lines = []
    for side in SIDES:
        for language in evidence.languages(side):
            scores = {method: _score(evidence.of(method), side, language) for method in evidence.methods}
            first, other = scores[leader], scores[baseline]
            ahead = None if leader == baseline else gain(evidence.metric, first, other)
            lines.append(LanguageLine(language, side, scores, ahead))
    return lines


def nearest(evidence: Evidence, leader: str) -> list[Nearest]:
    """The nearest seen languages of each language that has a relative among them or stands in the typological data."""
    seen = evidence.languages("seen")
    found = []
    for line in language_lines(evidence, leader):
        others = [_relative(line.language, other) for other in seen if other != line.language]
        in_tree = [each for each in others if each.genealogical is not None and each.genealogical < 1.0]
        alike = [each for each in others if _distance(each) is not None]
        first = min(in_tree, key=lambda each: (each.genealogical, _distance(each) or 1.0), default=None)
        if first or alike:
            found.append(Nearest(line, first, min(alike, key=lambda each: _distance(each) or 0.0, default=None)))
    return found


def _score(runs: Sequence[FinishedRun], side: Side, language: str) -> Score:
    """The mean over runs; None where one of them has no score."""
    return mean(run.result.scores[side].get(language, {}).get(run.result.metric) for run in runs)


def _relatives(line: LanguageLine) -> tuple[bool, str, str]:
    family, script = genealogy.family(line.language), genealogy.script(line.language)
    return family is None, family or "", script or ""


def _group(lines: list[LanguageLine], methods: Sequence[str]) -> LanguageGroup:
    language = lines[0].language
    means = {method: mean(line.scores[method] for line in lines) for method in methods}
    family, script = genealogy.family(language), genealogy.script(language)
    return LanguageGroup(family, script, lines, means, mean(line.gain for line in lines))


def _relative(language: str, other: str) -> Relative:
    return Relative(other, genealogy.distance(language, other), typology.likeness(language, other))


def _distance(relative: Relative) -> Score:
    return relative.typological and relative.typological.distance

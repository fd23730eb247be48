"""Which method to ship, by how much it leads, and how sure that is: sentences from a comparison's intervals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multitune.reports.evidence import Evidence
from multitune.reports.method_names import full
from multitune.results.comparison import Comparison, Interval
from multitune.results.decimals import decimals
from multitune.results.digests import named, tested_differently
from multitune.results.falling import rising
from multitune.results.metrics import Validate
from multitune.results.run import SIDES, Side, mean

FEW_EXAMPLES = 10
"""Test examples of a language that are pointed out as few, or fewer."""
CHANCE = 5
"""Those that are pointed out in the headline."""
STILL_RISING = 2.0
"""Points of dev score gained between the last two validations above which a run was cut off while it learnt."""


@dataclass(frozen=True)
class Lead:
    """The method with the best average on one side, and how far it is ahead of each other.

    Attributes:
        ahead: other method -> what the leader's average gains over the other's.
        uncompared: methods that were scored on this side, too few of whose runs finished for an interval.
    """

    side: Side
    leader: str
    score: Interval
    ahead: Mapping[str, Interval]
    uncompared: Sequence[str] = ()

    @property
    def beaten(self) -> dict[str, Interval]:
        """The methods that it is surely ahead of, and by how much."""
        return {method: gain for method, gain in self.ahead.items() if gain.low > 0.0}

    @property
    def beaten_by_little(self) -> list[tuple[str, Interval]]:
        """The methods that it is surely ahead of, and by how much, the smallest lead first."""
        return sorted(self.beaten.items(), key=lambda each: each[1].mean)

    @property
    def rivals(self) -> dict[str, Interval]:
        """The methods that it cannot be told apart from: the interval of the difference includes zero."""
        return {method: gain for method, gain in self.ahead.items() if gain.low <= 0.0}

    @property
    def unbeaten(self) -> list[str]:
        """The leader and its rivals."""
        return [self.leader, *self.rivals]


def leads(comparison: Comparison) -> list[Lead]:
    """The lead on seen and on unseen languages, as far as there are any."""
    return [lead for side in SIDES if (lead := _lead(comparison, side)) is not None]


def headline(leads: list[Lead], *, one_seed: bool) -> str:
    """One sentence: the method to ship, or why there is none; a single seed points to a method, and settles nothing."""
    if not leads:
        return "No method has a score with an interval."
    if not any(lead.ahead for lead in leads):
        return f"Not settled: too few runs finished to compare {full(leads[0].leader)} with another method."
    sides = " and ".join(lead.side for lead in leads)
    unbeaten = [method for method in leads[0].unbeaten if all(method in lead.unbeaten for lead in leads)]
    if not unbeaten:
        best = [f"{full(lead.leader)} on {lead.side} languages" for lead in leads]
        return f"No method wins everywhere: {', '.join(best)}."
    if len(unbeaten) > 1:
        names = (
            _listed([full(method) for method in unbeaten]) if len(unbeaten) < 4 else f"{len(unbeaten)} of the methods"
        )
        return f"Not settled: {names} cannot be told apart on {sides} languages."
    (only,) = unbeaten
    return f"{'One seed points to' if one_seed else 'Ship'} {full(only)}: {', '.join(_standings(leads))}."


def _standings(leads: Sequence[Lead]) -> list[str]:
    """How the one method that nothing beats stands on each side, sides of one standing together."""
    others = (
        "every method that it was compared with" if any(lead.uncompared for lead in leads) else "every other method"
    )
    places = {
        f"ahead of {others}": [lead.side for lead in leads if lead.ahead and not lead.rivals],
        "level with the best": [lead.side for lead in leads if lead.rivals],
        "with nothing to compare with": [lead.side for lead in leads if not lead.ahead],
    }
    return [f"{place} on {' and '.join(sides)} languages" for place, sides in places.items() if sides]


def is_of_one_seed(evidence: Evidence) -> bool:
    """Whether a comparison has one run a method."""
    return evidence.comparison is not None and len(evidence.shown) == len(evidence.methods)


def of_one(evidence: Evidence) -> str:
    """What a single method scores: the mean over its seeds."""
    results = [run.result for run in evidence.shown]
    averages = {side: mean(result.average[side] for result in results) for side in SIDES}
    digits = decimals(evidence.metric)
    scores = [f"{score:.{digits}f} on {side} languages" for side, score in averages.items() if score is not None]
    if not scores:
        return f"{full(results[0].method)}: no score is finite."
    seeds = f", the mean over {len(results)} seeds" if len(results) > 1 else ""
    return f"{full(results[0].method)}: {results[0].metric} {', '.join(scores)}{seeds}."


def chance(evidence: Evidence) -> str:
    """What stands after the headline where averages hang on a few examples, which no interval shows; else nothing."""
    few = _tested_on(evidence, CHANCE)
    return f" Averages hang on few test examples: {named(few)}." if few else ""


def caveats(evidence: Evidence) -> list[str]:
    """What the numbers cannot bear."""
    notes = [f"{full(run.method)}: {note}." for run in evidence.shown for note in run.result.notes]
    remarks = list(dict.fromkeys(notes))
    remarks += [f"Failed, and in no figure: {evidence.label(run)}: {run.error}." for run in evidence.failed]
    if is_of_one_seed(evidence):
        remarks.append(
            "One seed: the intervals say how sure the test examples make it, nothing about how seeds differ."
        )
    elif evidence.comparison is not None:
        remarks.append(
            "Several seeds: the intervals say how sure seeds and test examples make it, nothing about other languages."
        )
    remarks += _few_examples(evidence) + _unknown_labels(evidence) + _untaken(evidence) + _other_records(evidence)
    if len(evidence.methods) > 2:
        remarks.append("Intervals are 95 % each and not corrected for the number of comparisons.")
    rising = [
        f"{full(method)} (+{gain:.1f})"
        for method in evidence.methods
        if (gain := _last_gain(evidence, method)) > STILL_RISING
    ]
    if rising:
        remarks.append(
            f"Still learning when the budget ended, by the gain of dev {evidence.metric} since the validation before: "
            f"{', '.join(rising)}. A longer run may change the order."
        )
    return remarks


def _few_examples(evidence: Evidence) -> list[str]:
    """Languages with so few test examples that one of them moves a score by ten points or more."""
    few = _tested_on(evidence, FEW_EXAMPLES)
    return [f"Few test examples: {named(few)}; in an average all languages count alike."] if few else []


def _tested_on(evidence: Evidence, most: int) -> list[str]:
    """The languages that have at most so many test examples, each with their number."""
    counts = Counter(each.language for run in evidence.shown[:1] for each in run.predictions())
    return [f"{language} {count}" for language, count in counts.items() if count <= most]


def _unknown_labels(evidence: Evidence) -> list[str]:
    """Labels of the test data that the models cannot predict."""
    times = {
        language: sum(counts.values())
        for run in evidence.runs
        for language, counts in run.result.unknown_labels.items()
    }
    by_language = ", ".join(f"{language} {count}" for language, count in times.items())
    return [f"Test labels that training never shows count as wrong: {by_language}."] if times else []


def _untaken(evidence: Evidence) -> list[str]:
    """Steps that runs were to take and did not."""
    results = [(evidence.label(run), run.result) for run in evidence.runs]
    skipped = [f"{label} {r.skipped_steps} of {r.skipped_steps + r.steps}" for label, r in results if r.skipped_steps]
    untrained = [f"{label} on {', '.join(result.untrained)}" for label, result in results if result.untrained]
    remarks = []
    if skipped:
        remarks.append(f"Steps were skipped, since a loss or gradient was not finite: {', '.join(skipped)}.")
    if untrained:
        remarks.append(f"Never trained, for not one step was taken: {'; '.join(untrained)}.")
    return remarks


def _other_records(evidence: Evidence) -> list[str]:
    """Warn where runs were tested on different records: some were trained anew after the comparison."""
    runs = {evidence.label(run): run.result.digests for run in evidence.runs}
    languages = sorted({language for language, _, _ in tested_differently(runs)})
    if not languages:
        return []
    return [f"The runs were tested on different records of {named(languages)}: their scores cannot be compared."]


def _lead(comparison: Comparison, side: Side) -> Lead | None:
    scores = {method: sides[side] for method, sides in comparison.summary.items()}
    measured = {method: score for method, score in scores.items() if score is not None}
    if not measured:
        return None
    leader = max(measured, key=lambda method: rising(comparison.metric, measured[method].mean))
    ahead = {other: sides[side] for other, sides in comparison.pairwise[leader].items()}
    scored = dict.fromkeys(run.method for run in comparison.runs if run.scores[side])
    uncompared = [method for method in scored if method != leader and ahead.get(method) is None]
    known = {other: gain for other, gain in ahead.items() if gain is not None}
    return Lead(side, leader, measured[leader], known, uncompared)


def _last_gain(evidence: Evidence, method: str) -> float:
    """The mean gain of dev score between the last two validations of the method's runs."""
    gains = []
    for run in evidence.of(method):
        scores = [event.average for event in run.measured(Validate)[-2:]]
        match scores:
            case [float(before), float(last)]:
                gains.append(rising(evidence.metric, last) - rising(evidence.metric, before))
    return sum(gains) / len(gains) if gains else 0.0


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"

"""What the report concludes from a comparison's intervals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from builders import run_result
from multitune.reports import page, verdict
from multitune.results.comparison import ComparedRun, Comparison, Estimates, Interval
from multitune.results.run import Sides
from report_folders import HOSTILE, Contents, evidence

NOTHING: Estimates = Sides(None, None)


def comparison(seen: dict[str, float], unseen: dict[str, float], half: float) -> Comparison:
    """Methods with these averages; every interval reaches ``half`` to either side."""

    def interval(mean: float) -> Interval:
        return Interval(mean=mean, low=mean - half, high=mean + half)

    def own(one: str) -> Estimates:
        return Sides(interval(seen[one]), interval(unseen[one]) if unseen else None)

    def gain(one: str, other: str) -> Estimates:
        return Sides(interval(seen[one] - seen[other]), interval(unseen[one] - unseen[other]) if unseen else None)

    return Comparison(
        runs=[],
        chosen={},
        metric="f1",
        baseline="a",
        summary={one: own(one) for one in seen},
        differences={},
        pairwise={one: {other: gain(one, other) for other in seen if other != one} for one in seen},
        interval="bootstrap",
    )


HEADLINES = {
    "ahead everywhere": (
        ({"a": 50, "b": 60}, {"a": 40, "b": 45}, 2),
        "Ship b: ahead of every other method on seen and unseen languages.",
    ),
    "ahead on one side, level on the other": (
        ({"a": 50, "b": 60}, {"a": 46, "b": 45}, 2),
        "Ship b: ahead of every other method on seen languages, level with the best on unseen languages.",
    ),
    "one for each side": (
        ({"a": 50, "b": 60}, {"a": 50, "b": 45}, 2),
        "No method wins everywhere: b on seen languages, a on unseen languages.",
    ),
    "never beaten, never alone": (
        ({"a": 50, "b": 51, "c": 40}, {"a": 40, "b": 50, "c": 51}, 2),
        "Ship b: level with the best on seen and unseen languages.",
    ),
    "level": (
        ({"a": 50, "b": 51}, {"a": 46, "b": 45}, 2),
        "Not settled: b and a cannot be told apart on seen and unseen languages.",
    ),
    "nothing unseen": (({"a": 50, "b": 60}, {}, 2), "Ship b: ahead of every other method on seen languages."),
    "an interval that ends at no difference": (
        ({"a": 58, "b": 60}, {}, 2),
        "Not settled: b and a cannot be told apart on seen languages.",
    ),
    "many level": (
        ({"a": 50, "b": 51, "c": 50, "d": 50}, {}, 2),
        "Not settled: 4 of the methods cannot be told apart on seen languages.",
    ),
}


@pytest.mark.parametrize(("given", "said"), HEADLINES.values(), ids=HEADLINES)
def test_the_headline_says_what_the_intervals_bear(given: Any, said: str) -> None:
    leads = verdict.leads(comparison(*given))
    assert verdict.headline(leads, one_seed=False) == said
    assert verdict.headline(leads, one_seed=True) == said.replace("Ship", "One seed points to")


def test_a_method_that_cannot_be_compared_is_not_beaten() -> None:
    """Two of its three seeds failed, so that nothing has an interval."""
    whole = comparison({"a": 50, "b": 60, "c": 40}, {}, 2)
    run = run_result({"de": {"f1": 40.0}}, method="c")
    runs = [ComparedRun(**vars(run), folder="c-seed0", grid={})]
    summary = whole.summary | {"c": NOTHING}
    pairwise = {
        one: {other: NOTHING if "c" in (one, other) else gain for other, gain in own.items()}
        for one, own in whole.pairwise.items()
    }
    given = replace(whole, runs=runs, summary=summary, pairwise=pairwise)
    (lead,) = verdict.leads(given)
    assert list(lead.uncompared) == ["c"]
    said = "Ship b: ahead of every method that it was compared with on seen languages."
    assert verdict.headline([lead], one_seed=False) == said
    alone = replace(given, summary={"b": whole.summary["b"], "c": NOTHING}, pairwise={"b": {"c": NOTHING}, "c": {}})
    said = "Not settled: too few runs finished to compare b with another method."
    assert verdict.headline(verdict.leads(alone), one_seed=False) == said


def test_where_no_other_method_has_scores_nothing_is_beaten() -> None:
    """A model for each language has none for the unseen ones."""
    whole = comparison({"a": 50, "b": 60}, {"a": 40, "b": 45}, 2)
    of_a = Sides(whole.summary["a"].seen, None)
    gain = Sides(whole.pairwise["b"]["a"].seen, None)
    leads = verdict.leads(
        replace(whole, summary=whole.summary | {"a": of_a}, pairwise=whole.pairwise | {"b": {"a": gain}})
    )
    said = "Ship b: ahead of every other method on seen languages, with nothing to compare with on unseen languages."
    assert verdict.headline(leads, one_seed=False) == said


def test_several_seeds_of_one_method_are_told_by_their_mean(tmp_path: Path) -> None:
    one = evidence(tmp_path, Contents(methods=("mtl",), seeds=3))
    said = "Joint training: accuracy 52.0 on seen languages, 32.0 on unseen languages, the mean over 3 seeds."
    assert verdict.of_one(one) == said


def test_caveats(tmp_path: Path) -> None:
    said = verdict.caveats(evidence(tmp_path, Contents(examples=11)))
    assert said[0].startswith("One seed")
    assert "Joint training (+12.5), Sequential Reptile (+15.0)" in said[1], (
        "a quarter of the final score since the last validation"
    )
    several = verdict.caveats(evidence(tmp_path / "seeds", Contents(seeds=2, methods=("mtl", "stl", "fish"))))
    assert [line.split()[0] for line in several] == ["Several", "Few", "Intervals", "Still"]
    assert "nothing about other languages" in several[0]
    assert several[1].startswith(f"Few test examples: de 3, ar 3, {HOSTILE} 3, fr 3 and ja 3; in an average all")


def test_the_headline_ends_with_what_averages_hang_on(tmp_path: Path) -> None:
    few, many = (evidence(tmp_path / str(number), Contents(examples=number)) for number in (5, 6))
    said = f" Averages hang on few test examples: de 5, ar 5, {HOSTILE} 5, fr 5 and ja 5."
    assert (verdict.chance(few), verdict.chance(many)) == (said, "")
    assert f"languages.{escape(said)}</p>" in page.render(few)

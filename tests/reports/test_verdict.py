"""What the report concludes from a comparison's intervals."""

from pathlib import Path
from typing import Any

import pytest

from multitune.reports import verdict
from multitune.results.comparison import Comparison, Estimates, Interval
from multitune.results.run import Sides
from report_folders import Contents, evidence


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


def test_caveats(tmp_path: Path) -> None:
    said = verdict.caveats(evidence(tmp_path, Contents()))
    assert said[0].startswith("One seed")
    assert "Joint training (+12.5), Sequential Reptile (+15.0)" in said[1], (
        "a quarter of the final score since the last validation"
    )
    several = verdict.caveats(evidence(tmp_path / "seeds", Contents(seeds=2, methods=("mtl", "stl", "fish"))))
    assert [line.split()[0] for line in several] == ["Intervals", "Still"]

"""What a notebook shows of a result: every score once, the best language first, and no name as HTML."""

import re

import pytest

from builders import run_result
from multitune.cli import tables
from multitune.results.comparison import ComparedRun, Comparison, FailedRun, Interval
from multitune.results.run import Sides

EVIL = "<script>alert('&')</script>"


def cells(html: str) -> list[list[str]]:
    """The text of a table's rows."""
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


def test_a_run_shows_each_language_by_its_score() -> None:
    seen: dict[str, dict[str, float | None]] = {}
    seen |= {"de": {"accuracy": 71.0, "macro_f1": 60.04}, "sw": {"accuracy": None}, "fi": {"accuracy": 80.0}}
    sides = Sides(seen=None, unseen=50.0)
    result = run_result(seen, unseen={"th": {"accuracy": 50.0}}, average=sides)
    assert cells(result._repr_html_()) == [
        ["language", "accuracy", "macro_f1"],
        ["seen, mean of 3", "–", ""],
        ["fi", "80.0", "–"],
        ["de", "71.0", "60.0"],
        ["sw", "–", "–"],
        ["unseen, mean of 1", "50.0", ""],
        ["th", "50.0", "–"],
    ]


def test_losses_have_the_decimals_that_tell_them_apart() -> None:
    scores: dict[str, dict[str, float | None]] = {"de": {"exact_match": 12.34, "loss": 1.2344, "loss_per_byte": 0.5678}}
    shown = run_result(scores)._repr_html_()
    assert cells(shown)[2] == ["de", "12.3", "1.234", "0.568"]
    assert "12.3 1.234 0.568" in " ".join(cell.beside() for cell in tables.scores(scores).rows[0])


@pytest.fixture
def comparison() -> Comparison:
    run = run_result({"de": {"accuracy": 71.0}}, method=EVIL)
    mean, gain = Interval(71.0, 70.0, 72.04), Interval(1.0, -0.5, 2.5)
    none: Sides[Interval | None] = Sides(None, None)
    return Comparison(
        runs=[ComparedRun(**vars(run), folder="run", grid={})],
        chosen={EVIL: {}},
        metric="accuracy",
        baseline="mixed",
        summary={"mixed": Sides(mean, None), EVIL: Sides(mean, mean)},
        differences={EVIL: Sides(gain, gain)},
        pairwise={EVIL: {"mixed": none}},
        interval="paired bootstrap",
        failed=[FailedRun("stl", 0, "stl-seed0", {}, EVIL)],
    )


def test_a_comparison_shows_each_method_with_what_it_gains(comparison: Comparison) -> None:
    escaped = "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"
    assert cells(comparison._repr_html_()) == [
        ["method", "seen accuracy", "gain over mixed", "unseen accuracy", "gain over mixed"],
        ["mixed", "71.0 [70.0, 72.0]", "", "–", ""],
        [escaped, *["71.0 [70.0, 72.0]", "+1.0 [-0.5, +2.5]"] * 2],
        ["stl", f"failed: {escaped}", "", "", ""],
    ]


def test_names_stay_text(comparison: Comparison) -> None:
    run = run_result({EVIL: {EVIL: 1.0}}, method=EVIL)
    assert "<script" not in run._repr_html_() + comparison._repr_html_()

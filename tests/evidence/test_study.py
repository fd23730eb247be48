"""What the study chooses and concludes from a store that is made up, and what it says of an empty one."""

import json
import math
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multitune as mt
from analyse import area_shares, at_loss, confirmed, paired, progress, robustness
from choosing import CHOICES, Waiting, choices_of, freeze, half, ours_and_next, wanted
from contrasts import Contrast, in_knob_half, ratio, variance_of_rows
from inference import Estimate
from job import Job, perform
from page import rendered
from picture import COLOURS, draw
from plan import PLAN, STORE, Plan, Rates, Row, Setting, grid_of, read
from store import Stored, clusters, read_clusters, write, write_clusters
from store import read as stored
from verdicts import verdict

SEEN, UNSEEN = ("en", "de"), tuple("abcdefghijkl")
ROWS = 60
PAGE = Path(__file__).parents[2] / "bench" / "evidence" / "page.py"


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small files need not outlive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def plan() -> Plan:
    return read(PLAN)


def make(plan: Plan, store: Path, row: Row) -> None:
    """A row of made-up predictions: Sequential Reptile is right four points more often, mixed is best at 2e-4."""
    skill = 0.7 - 0.05 * abs(row.step) + 0.04 * row.contender.startswith("reptile")
    generator = np.random.default_rng(row.seed)  # common random numbers
    chance = {language: generator.random(ROWS) for language in (*SEEN, *UNSEEN)}
    own = np.random.default_rng([row.seed, sum(row.contender.encode()), row.step + 9])
    right = {k: v + own.normal(0, 0.05, ROWS) < skill for k, v in chance.items()}
    scores: dict[str, Any] = {
        side: {language: 100 * float(right[language].mean()) for language in languages}
        for side, languages in (("seen", SEEN), ("unseen", UNSEEN))
    }
    average = {side: float(np.mean([*scores[side].values()])) for side in scores}
    dev = {
        "shipped": {"dev": 100 * skill},
        "drift": 1.0,
        "metric": "accuracy",
        "average": average,
        "versions": {"torch": "2"},
    }
    recipe = plan.recipe(row, None).model_dump(mode="json")
    record: dict[str, Any] = {"task": "classification", "data": "x", "recipe": recipe, "results": scores | dev}
    if row.setting == "A0-probed":
        points = ((2.0, 0.5, 1.0), (0.5 if row.contender != "mixed" else 0.8, 0.0, 2.0))
        record["probes"] = [dict(zip(("loss", "cosine", "drift"), each, strict=True)) for each in points]
        record["skills"] = {"retrieval": {"seen": 70.0, "unseen": 60.0}, "masked_lm": {"seen": 3.128, "unseen": None}}
    write_clusters(store, row.setting, {k: clusters("row of three", [{}] * ROWS) for k in right})
    write(store, plan, row, record, {k: np.stack([np.ones(ROWS), v], 1).astype(float) for k, v in right.items()})


def finish(plan: Plan, store: Path, name: str) -> None:
    while lacking := [row for row in wanted(plan, store, name) if not (store / f"{plan.stem(row)}.json").exists()]:
        for row in lacking:
            make(plan, store, row)
    freeze(plan, store, name)


def test_the_plan_makes_recipes_and_an_empty_store_answers_nothing(plan: Plan, tmp_path: Path) -> None:
    for name in plan.contenders:
        plan.recipe(Row("A", name, 0, 0), None)
    assert {each.done for each in progress(plan, tmp_path).values()} == {0}
    assert "Nothing yet" in rendered(plan, tmp_path)
    assert "Not known" in rendered(plan, tmp_path)
    with pytest.raises(Waiting, match="has not chosen"):
        wanted(plan, tmp_path, "confirm-A0")


def test_a_study_chooses_confirms_and_says_what_is_missing(plan: Plan, tmp_path: Path) -> None:
    for name in ("pilot", "rates-A0", "knobs-A0"):
        finish(plan, tmp_path, name)
    choices = choices_of(tmp_path)
    assert choices["ours"].startswith("reptile")
    assert set(choices["rates"]["rates-A0"].values()) == {0}
    frozen = (tmp_path / CHOICES).read_text()
    assert not freeze(plan, tmp_path, "rates-A0")
    assert (tmp_path / CHOICES).read_text() == frozen
    finish(plan, tmp_path, "confirm-A0")
    ours, *others = confirmed(plan, tmp_path)
    left, right = draw(plan, [ours, *others]).axes
    rows = [label.get_text() for label in left.get_yticklabels()]
    assert sorted(rows) == sorted(f"A0  {each.contender}" for each in (ours, *others))
    assert {line.get_color() for line in right.lines} >= {COLOURS["better"]}
    assert (ours.setting, ours.contender, ours.verdict) == ("A0", choices["ours"], "better")
    assert set(ours.unseen.by_language) == {language for language in UNSEEN if not in_knob_half(language)}
    finish(plan, tmp_path, "robust-A0")
    assert robustness(plan, tmp_path, "robust-A0")[choices["ours"]].these.mean == pytest.approx(4, abs=1.5)
    assert "No momentum, averages" not in rendered(plan, tmp_path)
    for name in ("rates-cause-A0", "cause-A0", "why-A0"):
        finish(plan, tmp_path, name)
    against_mixed, against_reptile = (
        {one.contender: one for one in paired(plan, tmp_path, "cause-A0", base)} for base in ("mixed", "reptile")
    )
    assert against_mixed["reptile"].unseen.these.mean == pytest.approx(-against_reptile["mixed"].unseen.these.mean)
    page = rendered(plan, tmp_path)
    bases = ("mixed", "reptile", "reptile-permuted")
    subtracted = " | ".join(f"minus `{base}`" for base in bases)
    assert f"| `cause-A0` | Rate | Drift | {subtracted} | seen, minus `mixed` |" in page
    assert "| `lookahead` | 0.0002 | 1.0 |" in page
    assert "8 of 23 stages are finished" in page
    spread = page.partition("differences spread?")[2].partition("##")[0]
    assert "| `knobs-A0` | `reptile` | 8 |" in spread
    assert "rates-A0" not in spread, "its contenders have several rates"
    assert "| `mixed` | 0.122 [0.122, 0.122] |  |  | 1.8 [1.8, 1.8] |" in page, "the loss never falls to 0.7"
    assert "| `sequential` | 70.0 [70.0, 70.0] | 60.0 [60.0, 60.0] | 3.13 [3.13, 3.13] |  |" in page
    assert "rates-D has not chosen the rates yet" in page


def diverge(store: Path, plan: Plan, row: Row) -> None:
    """Have a stored row be that of a run that diverged."""
    path = (store / plan.stem(row)).with_suffix(".json")
    record = json.loads(path.read_text()) | {"results": {"failed": "not finite"}, "data": ""}
    path.write_text(json.dumps(record))
    write(store, plan, row, {key: record[key] for key in ("recipe", "task", "data", "results")}, {})


def test_a_rate_that_diverges_costs_its_share_of_the_area_and_no_seed(plan: Plan, tmp_path: Path) -> None:
    """The score of 0 at the last of four rates, which is a sixth of the area, over one seed in five."""
    chosen = {"ours": "reptile", "next": "mixed-ema", "knobs": {}, "rates": {}}
    (tmp_path / CHOICES).write_text(json.dumps(chosen))
    finish(plan, tmp_path, "robust-A0")
    before = robustness(plan, tmp_path, "robust-A0")["reptile"]
    row = Row("A0", "reptile", 2, 2003)
    was = stored(tmp_path, plan, row)
    assert was is not None
    lost = float(np.mean([score for k, score in was.scores("unseen").items() if not in_knob_half(k)]))
    diverge(tmp_path, plan, row)
    after = robustness(plan, tmp_path, "robust-A0")["reptile"]
    assert (len(after.by_seed), before.diverged, after.diverged) == (5, 0, 1)
    *_, share = area_shares([math.log(plan.rate.at(step)) for step in plan.stages["robust-A0"].steps])
    assert share == pytest.approx(1 / 6, rel=0.01)
    assert after.these.mean == pytest.approx(before.these.mean - share * lost / 5)
    assert after.by_language.keys() == before.by_language.keys()
    section = rendered(plan, tmp_path).partition("How much does a wrong rate cost?")[2]
    assert "| 0.000133 to 0.00045 | `reptile` | 5 | 1 |" in section
    rows = wanted(plan, tmp_path, "robust-A0")
    for row in rows:
        if row.contender in ("reptile", "mixed"):
            diverge(tmp_path, plan, row)
    assert robustness(plan, tmp_path, "robust-A0").keys() == {"mixed-no-momentum", "frozen-no-momentum"}
    for row in rows:
        diverge(tmp_path, plan, row)
    assert robustness(plan, tmp_path, "robust-A0") == {}
    assert f"Rows that diverged: {len(rows)}." in rendered(plan, tmp_path)


def test_a_confirming_run_that_diverges_counts_and_keeps_no_verdict_waiting(plan: Plan, tmp_path: Path) -> None:
    rates = {"rates-A0": {"mixed": 0, "reptile": 0, "mixed-ema": 0}}
    chosen = {"ours": "reptile", "next": "mixed-ema", "rates": rates, "pilot": {"sd": 1.0, "test_variance": 0.05}}
    (tmp_path / CHOICES).write_text(json.dumps(chosen))
    seeds = sorted({row.seed for row in wanted(plan, tmp_path, "confirm-A0")})
    for row in wanted(plan, tmp_path, "confirm-A0"):
        if row.seed in seeds[: half(seeds)]:
            make(plan, tmp_path, row)
    diverge(tmp_path, plan, Row("A0", "reptile", 0, seeds[0]))
    finish(plan, tmp_path, "confirm-A0")
    (ours, *_) = confirmed(plan, tmp_path)
    assert (ours.seeds, ours.look, ours.verdict) == ((len(seeds), len(seeds)), "end", "undecided")
    assert ours.unseen.by_seed[0] < -60, "one of its models is none"


def test_ours_is_a_contender_that_loses_little_where_there_is_one(plan: Plan) -> None:
    (knob, *_) = (language for language in UNSEEN if in_knob_half(language))

    def of(seen: float, unseen: float) -> Stored:
        return Stored({}, "", "", "", {"seen": {"en": 80 + seen}, "unseen": {knob: 60 + unseen}}, {}, Path())

    gains = {"mixed": (0, 0), "reptile": (-0.2, 1), "mixed-frozen": (-2, 5), "mixed-ema": (-1, 3)}
    rows = {Row("A0", name, 0, seed): of(*own) for name, own in gains.items() for seed in (1, 2)}
    chosen = ours_and_next(plan, rows)
    assert (chosen["ours"], chosen["next"]) == ("reptile", "mixed-frozen")


def test_a_stage_ends_at_half_where_the_first_look_decides(plan: Plan, tmp_path: Path) -> None:
    """Better on unseen languages beyond the first bound; on seen ones better, too, and then anything."""
    rates = {"rates-A0": {"mixed": 0, "reptile": 0, "mixed-ema": 0}}
    chosen = {"ours": "reptile", "next": "mixed-ema", "rates": rates, "pilot": {"sd": 1.0, "test_variance": 0.05}}
    (tmp_path / CHOICES).write_text(json.dumps(chosen))
    every = wanted(plan, tmp_path, "confirm-A0")
    seeds = sorted({row.seed for row in every})
    first = [row for row in every if row.seed in seeds[: half(seeds)]]
    for row in first:
        make(plan, tmp_path, row)
    assert wanted(plan, tmp_path, "confirm-A0") == first
    (ours, *_) = confirmed(plan, tmp_path)
    assert (ours.look, ours.verdict) == ("half", "better")
    for path in (tmp_path / "A0" / "reptile").glob("*.json"):
        record = json.loads(path.read_text())
        shift = 6 * (record["row"]["seed"] % 2) - 6
        record["results"]["seen"] = {k: v + shift for k, v in record["results"]["seen"].items()}
        path.write_text(json.dumps(record))
    assert wanted(plan, tmp_path, "confirm-A0") == every
    (ours, *_) = confirmed(plan, tmp_path)
    assert (ours.look, ours.verdict) == ("half", "")


def test_a_stage_that_tests_two_goes_on_until_both_are_decided_and_holm_counts_all_tests(
    plan: Plan, tmp_path: Path
) -> None:
    rates = {name: dict.fromkeys(plan.stages[name].contenders, 0) for name in ("rates-A0", "rates-cause-A0")}
    chosen = {
        "ours": "reptile",
        "next": "mixed-ema",
        "knobs": {},
        "rates": rates,
        "pilot": {"sd": 1.0, "test_variance": 0.05},
    }
    (tmp_path / CHOICES).write_text(json.dumps(chosen))
    every = wanted(plan, tmp_path, "confirm-momentum-A0")
    seeds = sorted({row.seed for row in every})
    for row in every:
        if row.seed in seeds[: half(seeds)]:
            make(plan, tmp_path, row)
    assert [(each.contender, each.verdict) for each in confirmed(plan, tmp_path)] == [
        ("mixed-no-momentum", ""),
        ("reptile-random-12", "better"),
    ]
    assert wanted(plan, tmp_path, "confirm-momentum-A0") == every
    finish(plan, tmp_path, "confirm-momentum-A0")
    two = {each.contender: each for each in confirmed(plan, tmp_path)}
    assert "- A0: `reptile-random-12` is *better* than `mixed`," in rendered(plan, tmp_path)
    finish(plan, tmp_path, "confirm-A0")
    three = {each.contender: each.corrected for each in confirmed(plan, tmp_path)}
    assert three["mixed-ema"] is None, "the runner-up is not tested"
    level_one = two["mixed-no-momentum"]
    assert (
        level_one.corrected
        == three["mixed-no-momentum"]
        == pytest.approx(level_one.unseen.these.p * 0.05 / level_one.alpha)
    )
    least = min(
        each.unseen.these.p * 0.05 / each.alpha for each in confirmed(plan, tmp_path) if each.corrected is not None
    )
    assert min(p for p in three.values() if p is not None) == pytest.approx(3 * least)


def tiny_plan(plan: Plan, tiny_model: Path, rate: float) -> Plan:
    """The plan with a setting of seconds, and a grid around another rate."""
    recipe = {"data": "panx", "budget": 12, "validate_every": 12, "non_finite_steps": 3}
    common = {"model": str(tiny_model), "precision": "fp32", "threads": 1, "device": "cpu", "batch_size": 4}
    settings = {"tiny": Setting(seconds=1, cluster="row", recipe=recipe)}
    return replace(plan, common=common, settings=settings, rate=Rates(rate, 1.5, (0,), 1))


def test_a_run_that_diverges_is_a_result_and_one_that_its_machine_ends_is_none(
    plan: Plan, tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    """What a full disk ended would else be the worst of all rates for ever."""
    resource, row = pytest.importorskip("resource"), Row("tiny", "mixed", 0, 0)
    diverging, sound = (tiny_plan(plan, tiny_model, rate) for rate in (1e30, 1e-3))
    said, _ = perform(diverging, Job(row, (), tiny_panx), tmp_path, tmp_path / "work")
    found = stored(tmp_path, diverging, row)
    assert found is not None
    assert found.failed
    assert "not finite" in said
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(mt.RunError, match="limit of file sizes"):
            perform(sound, Job(row, (), tiny_panx), tmp_path, tmp_path / "work")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stored(tmp_path, sound, row) is None
    perform(sound, Job(row, (), tiny_panx), tmp_path, tmp_path / "work")
    assert (whole := stored(tmp_path, sound, row)) is not None
    assert not whole.failed


def test_the_page_is_what_the_store_gives(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["page.py", "--check"])
    runpy.run_path(str(PAGE), run_name="__main__")
    assert "is what the store gives" in capsys.readouterr().out


def test_the_store_names_no_place_of_data() -> None:
    kept = [json.loads(path.read_text()) for path in STORE.rglob("*-seed*.json")]
    assert kept
    assert {each["recipe"]["path"] for each in kept} == {None}


def test_other_clusters_than_before_are_refused(tmp_path: Path) -> None:
    rows = [{"template": name} for name in "aabca"]
    assert clusters("template", rows).tolist() == [0, 0, 1, 2, 0]
    write_clusters(tmp_path, "A", {"en": clusters("template", rows)})
    assert read_clusters(tmp_path, "A")["en"].tolist() == [0, 0, 1, 2, 0]
    with pytest.raises(SystemExit, match="other clusters"):
        write_clusters(tmp_path, "A", {"en": clusters("row", rows)})


def test_the_grid_grows_alike_for_all_until_every_best_lies_inside(plan: Plan) -> None:
    hill = {name: {step: -abs(step - top) for step in range(-9, 20)} for name, top in (("a", 1.0), ("b", 3.0))}
    assert grid_of(plan, hill, ["a", "b"]) == {"a": [-2, -1, 0, 1, 2, 3], "b": [-1, 0, 1, 2, 3, 4]}
    rising = {"a": {step: float(step) for step in range(-9, 20)}}
    assert grid_of(plan, rising, ["a"]) == {"a": [-1, 0, 1, 2, 3, 4, 5]}
    assert grid_of(plan, {}, ["a"]) == {"a": [-1, 0, 1, 2]}


def test_clusters_vary_together_and_shared_ones_over_languages(plan: Plan, tmp_path: Path) -> None:
    """Copies of a row add no information: a test set of triples varies three times as much as one of single rows."""
    row = Row("A0", "mixed", 0, 0)
    make(plan, tmp_path, row)
    found = stored(tmp_path, plan, row)
    assert found is not None
    found.statistics.update({k: np.repeat(v[: ROWS // 3], 3, axis=0) for k, v in found.statistics.items()})
    seeds = [[(1.0, found)]]
    triples = {k: clusters("row of three", [{}] * ROWS) for k in UNSEEN}
    single = {k: clusters("row", [{}] * ROWS) for k in UNSEEN}
    by_triple, by_row = (variance_of_rows(seeds, each, UNSEEN, shared=False)[0] for each in (triples, single))
    assert by_triple / by_row == pytest.approx(3, rel=0.25)
    found.statistics.update(dict.fromkeys(UNSEEN, found.statistics["a"]))
    together = variance_of_rows(seeds, triples, UNSEEN, shared=True)[0]
    assert together / variance_of_rows(seeds, triples, UNSEEN, shared=False)[0] == pytest.approx(len(UNSEEN), rel=0.25)


@pytest.mark.parametrize(
    ("task", "rows", "score"),
    [
        ("classification", [[1, 1], [0, 1]], 0.5),
        ("pos_tagging", [[3, 4], [1, 6]], 0.4),
        ("tagging", [[1, 2, 1], [1, 1, 2]], 2 * 2 / 6),
    ],
)
def test_scores_are_ratios_of_sums(task: str, rows: list[list[float]], score: float) -> None:
    above, below = ratio(task, np.array(rows, dtype=float))
    assert above.sum() / below.sum() == pytest.approx(score)


@pytest.mark.parametrize(
    ("unseen", "seen", "word"),
    [
        ((0.2, 1.4), (-0.4, 0.3), "better"),
        ((0.2, 1.4), (-0.6, 0.3), "undecided"),
        ((-0.9, 0.9), (-0.4, 0.3), "level"),
        ((-0.9, 1.1), (-0.4, 0.3), "undecided"),
        ((-1.4, -0.2), (-0.4, 0.3), "worse"),
        ((0.2, 1.4), (-1.6, -0.6), "worse"),
    ],
)
def test_a_verdict_is_the_plans(plan: Plan, unseen: tuple[float, float], seen: tuple[float, float], word: str) -> None:
    def of(low: float, high: float) -> Contrast:
        these = Estimate((low + high) / 2, low, high, 1.0, 9.0, 0.01 if low > 0 or high < 0 else 0.5)
        return Contrast(these, None, None, 1.0, (0.0, 9.0), [], {}, 0)

    assert verdict(plan, of(*unseen), of(*seen), of(*unseen).these.p, 0.05) == word
    if word == "better":
        assert verdict(plan, of(*unseen), of(*seen), 0.06, 0.05) == "undecided"


def test_a_probe_is_read_where_the_loss_first_falls_that_low() -> None:
    losses, cosines = (2.0, 1.0, 1.2, 0.25), (0.8, 0.6, 0.5, 0.1)
    probes = [{"loss": loss, "cosine": cosine} for loss, cosine in zip(losses, cosines, strict=True)]
    assert at_loss(probes, 2**0.5, "cosine") == pytest.approx(0.7)
    assert at_loss(probes, 1.0, "cosine") == pytest.approx(0.6)
    assert at_loss(probes, 0.2, "cosine") is None


def test_area_shares_are_the_trapezoid_rule() -> None:
    assert area_shares([0.0, 1.0, 3.0]) == pytest.approx([1 / 6, 1 / 2, 1 / 3])

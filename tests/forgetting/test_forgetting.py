"""What the study of forgetting runs next and what its page says, from stores that are made up and from its own."""

import json
import os
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from forgetting import MAIN, OTHERS, RATES, Cell, Plan, Run, perform, rate_of, read, runs, stored
from forgetting_page import rendered
from tiny_causal import make as tiny

PAGE = Path(__file__).parents[2] / "bench" / "forgetting" / "forgetting_page.py"
BEST = -1
"""The place of the rate that the made-up store finds best for LoRA, an edge; full training has the one below."""


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small files need not outlive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def plan() -> Plan:
    return read()


def make(plan: Plan, store: Path, run: Run) -> None:
    """A made-up run: a seed more forgets 0.01 nats a byte more, languages that were not trained on twice as much."""
    rates = plan.rates[run.cell.tuning]
    best = rates[BEST if run.cell.tuning == "lora" else BEST - 1]
    forgotten = 0.1 + 0.01 * run.seed
    tuned = {"en": 1 + forgotten / 2, "de": 1 + forgotten, "sw": 1 + forgotten, "zh": 1 + 2 * forgotten}
    kept: dict[str, Any] = {
        "run": asdict(run),
        "recipe": plan.recipe(run).model_dump(mode="json"),
        "dev": {"loss": 0.2 if run.rate == best else 0.5, "exact_match": 40.0},
        "seen": {"en": {}, "de": {}, "sw": {}},
        "average": {"seen": 50.0 + run.seed, "unseen": 20.0},
        "drift": 3.0,
        "steps": 400,
        "next_tokens": {
            "pretrained": dict.fromkeys(tuned, 1.0),
            "tuned": tuned,
            "divergence": {k: 2 * (v - 1) for k, v in tuned.items()},
            "size": dict.fromkeys(tuned, 20),
        },
    }
    store.mkdir(exist_ok=True)
    (store / f"{run.stem}.json").write_text(json.dumps(kept), encoding="utf-8")


def fill(plan: Plan, store: Path, *stages: str) -> None:
    for stage in stages:
        for run in [run for run in runs(plan, store) if run.stage == stage]:
            make(plan, store, run)


def test_rates_come_first_then_the_cells_seed_by_seed_then_the_other_methods(plan: Plan, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert {run.stage for run in runs(plan, store)} == {RATES}
    fill(plan, store, RATES)
    later = [run for run in runs(plan, store) if run.stage != RATES]
    main = [run for run in later if run.stage == MAIN]
    assert later[: len(main)] == main
    assert [run.seed for run in main] == sorted(run.seed for run in main)
    assert len(main) == len(plan.cells) * len(plan.seeds)
    assert [run.cell.method for run in later[len(main) :]] == list(plan.others)
    assert len({run.stem for run in later}) == len(later)


def test_every_cell_has_as_many_tries_and_the_rate_with_the_lowest_loss_on_dev(plan: Plan, tmp_path: Path) -> None:
    assert len({len(plan.tries(cell)) for cell in plan.cells}) == 1
    cell = Cell("lora", "mixed")
    *others, last = plan.tries(cell)
    for run in others:
        make(plan, tmp_path, run)
    assert rate_of(plan, tmp_path, cell) is None
    make(plan, tmp_path, last)
    assert rate_of(plan, tmp_path, cell) == plan.rates["lora"][BEST]


def test_only_runs_that_are_probed_keep_a_model_and_their_recipes_are_the_plans(plan: Plan) -> None:
    cell = Cell("full", "sequential_reptile")
    chosen, main = plan.recipe(plan.tries(cell)[0]), plan.recipe(Run(MAIN, cell, 1e-4, 2))
    assert (chosen.budget, chosen.save_model, chosen.lora) == (plan.rates["budget"], False, None)
    assert (main.budget, main.save_model, main.seed, main.batch_size, main.test_limit) == (400, True, 2, 8, 20)
    assert not plan.recipe(Run(OTHERS, Cell("lora", "swep"), 1e-3, 0)).packing


def test_the_page_has_means_and_the_lowest_and_highest_seed(plan: Plan, tmp_path: Path) -> None:
    assert "So far there are 0 of 16 runs that choose rates, 0 of 12" in rendered(plan, tmp_path)
    fill(plan, tmp_path, RATES, MAIN)
    said = rendered(plan, tmp_path)
    assert "nothing is concluded" not in said
    row = next(line for line in said.splitlines() if line.startswith("| full | `mixed` | 3 "))
    cells = [cell.strip() for cell in row.strip("|").split("|")][3:]
    assert cells == [
        "51.0 (50.0 to 52.0)",
        "20.0 (20.0 to 20.0)",
        "+0.110 (+0.100 to +0.120)",
        "+0.220 (+0.200 to +0.240)",
        "+0.055 (+0.050 to +0.060)",
        "0.220 (0.200 to 0.240)",
        "0.440 (0.400 to 0.480)",
        "3.00 (3.00 to 3.00)",
    ]


def test_a_part_of_the_comparison_says_that_it_is_one(plan: Plan, tmp_path: Path) -> None:
    fill(plan, tmp_path, RATES)
    make(plan, tmp_path, next(run for run in runs(plan, tmp_path) if run.stage == MAIN))
    said = rendered(plan, tmp_path)
    assert "1 of 12 runs of the main comparison" in said
    assert "nothing is concluded from it yet" in said


def test_a_run_of_another_recipe_is_refused(plan: Plan, tmp_path: Path) -> None:
    run = plan.tries(Cell("lora", "mixed"))[0]
    make(plan, tmp_path, run)
    path = tmp_path / f"{run.stem}.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"batch_size": 8', '"batch_size": 9'), encoding="utf-8")
    with pytest.raises(SystemExit, match="was run with other batch_size than the plan says"):
        stored(plan, tmp_path, run)


def test_a_run_is_trained_probed_and_stored_without_a_text(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("home_assistant_intents", reason="needs the extra offline")
    pytest.importorskip("peft", reason="needs the extra lora")
    texts = tmp_path / "texts"
    texts.mkdir()
    for language in ("en", "de", "zh"):
        (texts / f"{language}.txt").write_text("a sentence\nand another one\n", encoding="utf-8")
    small = {"model": str(tiny(tmp_path / "tiny")), "languages": ["de", "en"], "unseen": ["nl"], "batch_size": 2}
    counts = {"budget": 4, "validate_every": 4, "dev_limit": 1, "test_limit": 1, "train_limit": 8, "precision": "fp32"}
    one = replace(plan, common={**plan.common, **small, **counts})
    run, store = Run(MAIN, Cell("lora", "sequential_reptile"), 1e-3, 0), tmp_path / "store"
    assert perform(one, run, store, tmp_path / "work", texts).startswith("dev loss")
    kept = stored(one, store, run)
    assert kept is not None
    assert set(kept["next_tokens"]["tuned"]) == {"en", "de", "zh"}
    assert set(kept["seen"]) == {"de", "en"}
    assert kept["drift"] > 0
    assert not any((tmp_path / "work").iterdir())
    assert "sentence" not in (store / f"{run.stem}.json").read_text(encoding="utf-8")


def test_the_page_is_what_the_store_gives(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [PAGE.name, "--check"])
    runpy.run_path(str(PAGE), run_name="__main__")
    assert "is what the store gives" in capsys.readouterr().out

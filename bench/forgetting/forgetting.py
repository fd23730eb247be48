"""Run what the study of forgetting lacks (plan.yaml), and go on from there at the next call.

python bench/forgetting/forgetting.py --texts data/sib200 [--jobs N] [--hours N] [--dry-run]

Stop it at any time (Ctrl-C or SIGTERM): what was finished is stored, runs that were stopped are resumed. Of each run
the store has its recipe, scores and probes as JSON, and no text. Then forgetting_page.py writes the section of
docs/results.md.
"""

import argparse
import json
import logging
import platform
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

import multitune as mt
from multitune.recipe import Recipe
from multitune.recipe_files import merge, validated
from multitune.results.json_files import plain
from multitune.storage.atomic import replaced

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLAN = HERE / "plan.yaml"
STORE = HERE / "store"
WORK = ROOT / "runs" / "forgetting"
HOUR = 3600
RATES, MAIN, OTHERS = "rates", "main", "others"
UNTUNED = ("lora", "mixed")
"""The tuning of the other methods, and the method whose rate they have."""


@dataclass(frozen=True)
class Cell:
    """A tuning (``lora`` or ``full``) with a method."""

    tuning: str
    method: str


@dataclass(frozen=True)
class Run:
    """A training of the study: ``stage`` is RATES, MAIN or OTHERS."""

    stage: str
    cell: Cell
    rate: float
    seed: int

    @property
    def stem(self) -> str:
        return f"{self.stage}-{self.cell.tuning}-{self.cell.method}-{1e6 * self.rate:.0f}e-6-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All of plan.yaml."""

    common: Mapping[str, Any]
    tunings: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    rates: Mapping[str, Any]
    seeds: tuple[int, ...]
    others: Mapping[str, Mapping[str, Any]]

    @property
    def cells(self) -> list[Cell]:
        """Those of the main stage."""
        return [Cell(tuning, method) for tuning in self.tunings for method in self.methods]

    def tries(self, cell: Cell) -> list[Run]:
        """The runs that choose a cell's rate."""
        return [Run(RATES, cell, rate, self.seeds[0]) for rate in self.rates[cell.tuning]]

    def recipe(self, run: Run) -> Recipe:
        """The recipe of a run.

        Raises:
            UserError: a key or a value that no recipe has.
        """
        own = self.others if run.stage == OTHERS else self.methods
        keys = merge(merge(self.common, self.tunings[run.cell.tuning]), own[run.cell.method])
        if run.stage == RATES:
            keys |= {"budget": self.rates["budget"], "validate_every": self.rates["budget"], "test_limit": 1}
        return validated(
            keys | {"method": run.cell.method, "learning_rate": run.rate, "seed": run.seed, "save_model": _probed(run)},
            "plan",
        )


def _probed(run: Run) -> bool:
    return run.stage != RATES


def read(path: Path = PLAN) -> Plan:
    """The plan in a file; a key that nothing reads, or one that is not there, stops it."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Plan(**raw | {"seeds": tuple(raw["seeds"])})


def stored(plan: Plan, store: Path, run: Run) -> dict[str, Any] | None:
    """What is kept of a run; None where it was not run.

    Raises:
        SystemExit: it was run with another recipe than the plan's.
    """
    path = store / f"{run.stem}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    wanted = plan.recipe(run).model_dump(mode="json")
    if other := [key for key, value in found["recipe"].items() if value != wanted[key]]:
        raise SystemExit(
            f"{path}: was run with other {', '.join(other)} than the plan says; remove it, or mend the plan"
        )
    return found


def rate_of(plan: Plan, store: Path, cell: Cell) -> float | None:
    """The rate whose run has the lowest loss on dev; None as long as one of the tries is missing, or all failed."""
    tries = {run.rate: stored(plan, store, run) for run in plan.tries(cell)}
    if any(found is None for found in tries.values()):
        return None
    losses = {rate: found["dev"]["loss"] for rate, found in tries.items() if found and "failed" not in found}
    return min(losses, key=lambda rate: losses[rate]) if losses else None


def runs(plan: Plan, store: Path) -> Iterator[Run]:
    """All runs whose rates are known, in their order: rates, then seed by seed, then the other methods."""
    for cell in plan.cells:
        yield from plan.tries(cell)
    for seed in plan.seeds:
        for cell in plan.cells:
            if (rate := rate_of(plan, store, cell)) is not None:
                yield Run(MAIN, cell, rate, seed)
    tuning, method = UNTUNED
    if (rate := rate_of(plan, store, Cell(tuning, method))) is not None:
        yield from (Run(OTHERS, Cell(tuning, other), rate, plan.seeds[0]) for other in plan.others)


def perform(plan: Plan, run: Run, store: Path, work: Path, texts: Path) -> str:
    """Train, probe, store, remove the run folder; a run that diverges is stored as failed.

    Raises:
        multitune.Interrupted, multitune.UserError, multitune.RunError: as ``mt.train`` and ``mt.probe`` do.
    """
    begun, recipe, folder = time.monotonic(), plan.recipe(run), work / run.stem
    kept: dict[str, Any] = {"run": asdict(run), "recipe": recipe.model_dump(mode="json"), "processor": _processor()}
    try:
        results = plain(mt.train(recipe, folder, resume=True))
        kept |= _results(results) | {"dev": _dev(folder)}
        if _probed(run):
            kept |= _probes(plain(mt.probe(folder, texts=texts)))
    except mt.DivergedError as error:
        kept["failed"] = str(error)
    kept["seconds"] = round(time.monotonic() - begun)
    store.mkdir(exist_ok=True)
    with replaced(store / f"{run.stem}.json") as beside:
        beside.write_text(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    return str(kept["failed"]) if "failed" in kept else f"dev loss {kept['dev']['loss']:.3f}, drift {kept['drift']:.2f}"


def begin_process() -> None:
    """Let this process of the pool say errors alone, as runs take turns with their lines, and be stopped in runs alone.

    One that a signal killed between runs would break the pool, and leave the others to wait for ever.
    """
    logging.getLogger("multitune").setLevel(logging.ERROR)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _results(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: results[key] for key in ("seen", "unseen", "average", "drift", "steps", "versions")}


def _dev(folder: Path) -> dict[str, float]:
    """The means over languages of what the last validation measured."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    *_, last = (line["dev"] for line in lines if line["event"] == "validate")
    return {name: sum(own[name] for own in last.values()) / len(last) for name in ("loss", "exact_match")}


def _probes(findings: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a probe's next tokens; answers stay out, and so does the place of the texts."""
    keys = ("pretrained", "tuned", "divergence", "size")
    return {"next_tokens": {key: findings["next_tokens"][key] for key in keys}}


def run_all(plan: Plan, store: Path, work: Path, texts: Path, jobs: int, hours: float) -> None:
    """Run what is missing, ``jobs`` side by side; begin none once the hours are over."""
    until, running = time.monotonic() + hours * HOUR, dict[Future[str], Run]()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=begin_process) as pool:
        try:
            while True:
                missing = (run for run in _missing(plan, store) if run not in running.values())
                while len(running) < jobs and time.monotonic() < until and (run := next(missing, None)):
                    running[pool.submit(perform, plan, run, store, work, texts)] = run
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(future)
                    print(f"{time.strftime('%H:%M:%S')} {run.stem}: {future.result()}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            while children := active_children():  # one that loads, scores or stores is told again once it trains
                for child in children:
                    child.terminate()
                time.sleep(1)
            raise


def _missing(plan: Plan, store: Path) -> list[Run]:
    return [run for run in runs(plan, store) if stored(plan, store, run) is None]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description="Run what the study of forgetting lacks.")
    parser.add_argument("--texts", type=Path, required=True, help="SIB-200's folder, or LANGUAGE.txt files")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each of one thread")
    parser.add_argument("--hours", type=float, default=1e6, help="begin no run after so many hours")
    parser.add_argument("--dry-run", action="store_true", help="list what is missing, as far as its rate is known")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for runs under way")
    given = parser.parse_args()
    plan = read()
    if given.dry_run:
        print(*(run.stem for run in _missing(plan, STORE)), sep="\n")
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        run_all(plan, STORE, given.work.resolve(), given.texts.resolve(), given.jobs, given.hours)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on") from None
    except mt.RunError as error:
        raise SystemExit(f"{error} (here: the same command goes on)") from None


if __name__ == "__main__":
    main()

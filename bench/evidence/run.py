"""Run what the study lacks, two runs side by side (--jobs), and go on from there at the next call.

python bench/evidence/run.py [--stage STAGE] [--hours N] [--jobs N] [--dry-run] [--data FOLDER] [--commit]
python bench/evidence/run.py --again A0 mixed 0 100

Stop it at any time (Ctrl-C or SIGTERM): what was finished is stored, and runs that were stopped are resumed. A stage
that chooses writes store/choices.json, which has to be committed before the stages that confirm; --commit does so.
"""

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from types import FrameType

import multitune as mt
import tuning_data
from choosing import CHOICES, Waiting, freeze, wanted
from job import Job, again, begin_process, perform
from plan import PLAN, ROOT, STORE, Plan, Row, read
from probed import train_heads
from store import read as stored

SIDE_BY_SIDE = 2
DATA = Path(os.environ.get("MULTITUNE_DATA", ROOT.parent / "shared" / "data"))
WORK = ROOT / "runs" / "evidence"
HOUR = 3600


@dataclass(frozen=True)
class Places:
    """Folders: of the rows, of runs that are under way, of published data."""

    store: Path
    work: Path
    data: Path


def missing(plan: Plan, store: Path, name: str) -> list[tuple[Row, tuple[Row, ...]]]:
    """The trainings that a stage lacks, as far as is known yet, each with the rows of points on its way back.

    Raises:
        Waiting: another stage has to choose first.
    """
    lacking: dict[Row, list[Row]] = {}
    for row in wanted(plan, store, name):
        if stored(store, plan, row) is None:
            trained = Row(row.setting, plan.base(row.contender), row.step, row.seed)
            points = lacking.setdefault(trained, [])
            points += [row] if row != trained else []
    return [(trained, tuple(points)) for trained, points in lacking.items()]


def dry_run(plan: Plan, places: Places, names: Sequence[str]) -> None:
    """Print what each stage lacks and the hours that it would take."""
    for name in names:
        seconds = plan.settings[plan.stages[name].setting].seconds
        try:
            lacking = missing(plan, places.store, name)
        except Waiting as reason:
            print(f"{name}: {reason}")
            continue
        hours = len(lacking) * seconds / SIDE_BY_SIDE / HOUR
        print(f"{name}: {len(lacking)} runs missing, about {hours:.1f} h" if lacking else f"{name}: finished")
        for trained, points in lacking:
            print(f"  {plan.stem(trained)}", *(f"+ {point.contender}" for point in points))


def run(plan: Plan, places: Places, names: Sequence[str], hours: float, side_by_side: int, *, commit: bool) -> None:
    """Run stages in turn until they are finished or the hours are over."""
    until = time.monotonic() + hours * HOUR
    with ProcessPoolExecutor(side_by_side, mp_context=get_context("spawn"), initializer=begin_process) as pool:
        try:
            for name in names:
                _check_committed(plan, places.store, name)
                if plan.stages[name].kind == "why" and missing(plan, places.store, name):
                    train_heads(plan, plan.stages[name].setting, places.work)
                _run_stage(plan, places, name, pool, side_by_side, until)
                if time.monotonic() > until:
                    print(f"{name}: the hours are over; the same command goes on")
                    return
                if freeze(plan, places.store, name):
                    print(f"{name}: finished; its choice stands in {places.store / CHOICES}", flush=True)
                    if commit:
                        _commit(places.store, name)
        except (KeyboardInterrupt, mt.Interrupted, Waiting):
            pool.shutdown(wait=False, cancel_futures=True)
            while children := active_children():  # one that loads, scores or stores is told again once it trains
                for child in children:
                    child.terminate()
                time.sleep(1)
            raise


def _run_stage(
    plan: Plan, places: Places, name: str, pool: ProcessPoolExecutor, side_by_side: int, until: float
) -> None:
    running: dict[Future[tuple[str, float]], Row] = {}
    while True:
        todo = _todo(plan, places, name, {*running.values()}) if time.monotonic() < until else iter(())
        while len(running) < side_by_side and (job := next(todo, None)) is not None:
            running[pool.submit(perform, plan, job, places.store, places.work)] = job.row
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            row = running.pop(future)
            said, seconds = future.result()
            print(f"{time.strftime('%H:%M:%S')} {name} {plan.stem(row)}: {said}, {seconds:.0f} s", flush=True)


def _todo(plan: Plan, places: Places, name: str, under_way: set[Row]) -> Iterator[Job]:
    for row, points in missing(plan, places.store, name):
        if row not in under_way:
            yield Job(row, points, tuning_data.folder(plan.settings[row.setting], places.data, places.work))


def _check_committed(plan: Plan, store: Path, name: str) -> None:
    """Refuse a stage that confirms while choices in the repository's own store are not committed."""
    if plan.stages[name].kind == "confirm" and store == STORE and (store / CHOICES).exists():
        said = subprocess.run(
            ["git", "status", "--porcelain", "--", store / CHOICES],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        if said:
            raise SystemExit(f"{name}: commit {store / CHOICES} first, or call with --commit")


def _commit(store: Path, name: str) -> None:
    for words in (["add", "--"], ["commit", "--quiet", "-m", f"Freeze what {name} has chosen", "--"]):
        subprocess.run(["git", *words, store], cwd=ROOT, check=True)


def check_again(plan: Plan, places: Places, row: Row) -> None:
    """Train a stored row once more and compare its scores and statistics, bitwise.

    Raises:
        SystemExit: it is not stored, or not the same; or it was a point on a way back, which is not trained.
    """
    before = stored(places.store, plan, row)
    if before is None or plan.base(row.contender) != row.contender:
        raise SystemExit(f"{plan.stem(row)}: is no stored row that was trained")
    data = tuning_data.folder(plan.settings[row.setting], places.data, places.work)
    statistics, results = again(plan, row, data, places.work)
    same = [k for k, v in statistics.items() if (v == before.statistics[k]).all()]
    scores = all(before.scores(side) == results[side] for side in ("seen", "unseen"))
    if len(same) < len(statistics) or not scores or results["drift"] != before.results["drift"]:
        raise SystemExit(f"{plan.stem(row)}: differs in {len(statistics) - len(same)} of {len(statistics)} languages")
    print(f"{plan.stem(row)}: the same statistics, scores and drift to the last bit")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description="Run what the study lacks.")
    parser.add_argument("--stage", help="this stage alone; all in their order by default")
    parser.add_argument("--hours", type=float, default=1e6, help="begin no run after so many hours")
    parser.add_argument("--jobs", type=int, default=SIDE_BY_SIDE, help="runs side by side, each of one thread")
    parser.add_argument("--dry-run", action="store_true", help="list what is missing")
    parser.add_argument("--commit", action="store_true", help="commit the store when a stage has chosen")
    parser.add_argument("--again", nargs=4, metavar=("SETTING", "CONTENDER", "STEP", "SEED"), help="run a row again")
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for runs under way")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of published data")
    given = parser.parse_args()
    plan, places = read(given.plan), Places(given.store.resolve(), given.work.resolve(), given.data.resolve())
    if given.stage is not None and given.stage not in plan.stages:
        raise SystemExit(f"--stage: {given.stage} is none; there are {', '.join(plan.stages)}")
    names = [given.stage] if given.stage else list(plan.stages)
    if given.again:
        setting, contender, step, seed = given.again
        check_again(plan, places, Row(setting, contender, int(step), int(seed)))
    elif given.dry_run:
        dry_run(plan, places, names)
    else:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            run(plan, places, names, given.hours, given.jobs, commit=given.commit)
        except Waiting as reason:
            raise SystemExit(f"{given.stage or names[0]}: {reason}") from None
        except (KeyboardInterrupt, mt.Interrupted):
            raise SystemExit("stopped; the same command goes on") from None
        except mt.RunError as error:
            raise SystemExit(f"{error} (here: the same command goes on)") from None


if __name__ == "__main__":
    main()

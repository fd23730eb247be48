"""Write what the store of the study of forgetting says into docs/results.md, between its markers.

python bench/forgetting/forgetting_page.py [--check]

--check changes nothing, and ends with 1 where the page is not what the store gives.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetting import MAIN, OTHERS, PLAN, ROOT, STORE, UNTUNED, Cell, Plan, Run, rate_of, read, stored

PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- from bench/forgetting/store: begin -->", "<!-- from bench/forgetting/store: end -->"
ENGLISH = "en"
Found = Mapping[str, Any]
COLUMNS: dict[str, tuple[Callable[[Found], float], str]] = {
    "exact match, trained on": (lambda found: found["average"]["seen"], ".1f"),
    "others": (lambda found: found["average"]["unseen"], ".1f"),
    "nats a byte, trained on": (lambda found: _change(found, _trained(found)), "+.3f"),
    "others ": (lambda found: _change(found, _others(found)), "+.3f"),
    "English": (lambda found: _change(found, [ENGLISH]), "+.3f"),
    "KL, trained on": (lambda found: _divergence(found, _trained(found)), ".3f"),
    "others  ": (lambda found: _divergence(found, _others(found)), ".3f"),
    "drift": (lambda found: found["drift"], ".2f"),
}
"""Heading -> what of a run, and with which digits."""


def _trained(found: Found) -> list[str]:
    """Languages with texts that the run trained on, but for English, which pretraining knows best."""
    return [k for k in found["next_tokens"]["size"] if k in found["seen"] and k != ENGLISH]


def _others(found: Found) -> list[str]:
    return [k for k in found["next_tokens"]["size"] if k not in found["seen"]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _change(found: Found, languages: Sequence[str]) -> float:
    """By how much the loss of texts has risen, in nats a byte; the mean over languages."""
    own = found["next_tokens"]
    return _mean([own["tuned"][k] - own["pretrained"][k] for k in languages])


def _divergence(found: Found, languages: Sequence[str]) -> float:
    return _mean([found["next_tokens"]["divergence"][k] for k in languages])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(each.strip() for each in head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def rendered(plan: Plan, store: Path) -> str:
    """All that stands between the markers."""
    parts = [_state(plan, store), _rates(plan, store), _main(plan, store), _other_methods(plan, store)]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part)


def _runs(plan: Plan, store: Path, cell: Cell) -> list[Found]:
    """The main runs of a cell that are stored and did not diverge."""
    rate = rate_of(plan, store, cell)
    each = [] if rate is None else [stored(plan, store, Run(MAIN, cell, rate, seed)) for seed in plan.seeds]
    return [found for found in each if found is not None and "failed" not in found]


def _other(plan: Plan, store: Path, method: str) -> Found | None:
    tuning, baseline = UNTUNED
    rate = rate_of(plan, store, Cell(tuning, baseline))
    return None if rate is None else stored(plan, store, Run(OTHERS, Cell(tuning, method), rate, plan.seeds[0]))


def _state(plan: Plan, store: Path) -> Iterator[str]:
    """How much of the study has been run."""
    tries = [stored(plan, store, run) for cell in plan.cells for run in plan.tries(cell)]
    main = [len(_runs(plan, store, cell)) for cell in plan.cells]
    others = [_other(plan, store, method) for method in plan.others]
    counts = [
        f"{sum(found is not None for found in tries)} of {len(tries)} runs that choose rates",
        f"{sum(main)} of {len(plan.cells) * len(plan.seeds)} runs of the main comparison",
        f"{sum(found is not None for found in others)} of {len(others)} other methods",
    ]
    yield f"So far there are {counts[0]}, {counts[1]} and {counts[2]}."
    if not all(count == len(plan.seeds) for count in main):
        yield "The comparison is not finished: nothing is concluded from it yet."


def _rates(plan: Plan, store: Path) -> Iterator[str]:
    """Loss on dev at each rate that was tried."""
    rows = []
    for cell in plan.cells:
        tries = {run.rate: stored(plan, store, run) for run in plan.tries(cell)}
        said = ", ".join(f"{rate:.0e}: {_dev(found)}" for rate, found in tries.items() if found is not None)
        chosen = rate_of(plan, store, cell)
        if said:
            rows.append((cell.tuning, f"`{cell.method}`", said, _chosen(chosen, list(tries))))
    if rows:
        yield f"Loss on dev in nats a learnt token after {plan.rates['budget']} gradients (exact match in brackets):"
        yield ""
        yield from _table(("Weights", "Method", "Rate: loss", "Chosen"), rows)


def _chosen(rate: float | None, tried: Sequence[float]) -> str:
    """The rate; at an edge of the grid there may be a better one beyond."""
    if rate is None:
        return ""
    return f"{rate:.0e}, an edge of the grid" if rate in (min(tried), max(tried)) else f"{rate:.0e}"


def _dev(found: Found) -> str:
    return "diverged" if "failed" in found else f"{found['dev']['loss']:.3f} ({found['dev']['exact_match']:.0f})"


def _main(plan: Plan, store: Path) -> Iterator[str]:
    """Mean over seeds, lowest and highest in brackets."""
    rows = []
    for cell in plan.cells:
        if found := _runs(plan, store, cell):
            cells = (_spread([take(each) for each in found], digits) for take, digits in COLUMNS.values())
            rows.append((cell.tuning, f"`{cell.method}`", str(len(found)), *cells))
    if rows:
        yield "Means over seeds (lowest to highest):"
        yield ""
        yield from _table(("Weights", "Method", "Seeds", *COLUMNS), rows)


def _spread(values: Sequence[float], digits: str) -> str:
    mean, low, high = (format(value, digits) for value in (_mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def _other_methods(plan: Plan, store: Path) -> Iterator[str]:
    """One seed each: no claim."""
    rows = []
    for method in plan.others:
        found = _other(plan, store, method)
        if found is not None:
            cells = ["diverged"] * len(COLUMNS) if "failed" in found else _formatted(found)
            rows.append((f"`{method}`", "" if "failed" in found else str(found["steps"]), *cells))
    if rows:
        yield "The other methods, LoRA, one seed, at the rate of `mixed`, which was not chosen for them: no claim."
        yield ""
        yield from _table(("Method", "Steps", *COLUMNS), rows)


def _formatted(found: Found) -> list[str]:
    return [format(take(found), digits) for take, digits in COLUMNS.values()]


def with_section(page: str, section: str) -> str:
    """A page with another section between its markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the section on forgetting of docs/results.md from the store.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is what the store gives")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    now = given.page.read_text(encoding="utf-8")
    new = with_section(now, rendered(read(PLAN), STORE))
    if given.check:
        if now != new:
            raise SystemExit(
                f"{given.page}: is not what the store gives; python bench/forgetting/forgetting_page.py writes it"
            )
        print(f"{given.page}: is what the store gives")
    else:
        given.page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()

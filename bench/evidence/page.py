"""Write what the store says into docs/evidence.md, between its markers.

python bench/evidence/page.py [--check]

--check changes nothing, and ends with 1 where the page is not what the store gives.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from analyse import LOSSES, Compared, confirmed, of_kind, paired, probed, progress, rate_table, robustness, rows_of
from choosing import choices_of
from contrasts import in_knob_half
from inference import Estimate
from plan import NEXT, OURS, PLAN, ROOT, STORE, WORDS, Plan, read

PAGE = ROOT / "docs" / "evidence.md"
BEGIN, END = "<!-- from bench/evidence/store: begin -->", "<!-- from bench/evidence/store: end -->"
SMALLEST = 0.001
"""A smaller p is not spelt out."""
MOST_NAMED = 3
DIGITS = {"retrieval": 1, "masked_lm": 2}
"""Of percent, and of nats, which differ by less."""
MAIN = ("Setting", "Contender", "Seeds", "Level", "Unseen, these", "Unseen, new", "Seen, these", "p", "Verdict")


def rendered(plan: Plan, store: Path) -> str:
    """All that stands between the markers."""
    parts = [_state(plan, store), _chosen(plan, store), _pilot(plan, store), _main(plan, store)]
    parts += [
        _causes(plan, store),
        _why(plan, store),
        _robust(plan, store),
        _rates(plan, store),
        _others(plan, store),
        _machines(plan, store),
    ]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part)


def with_section(page: str, section: str) -> str:
    """A page with another section between its markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{rest.split(END)[1]}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _state(plan: Plan, store: Path) -> Iterator[str]:
    """How much of the study has been run."""
    stages = progress(plan, store)
    done = sum(each.done for each in stages.values())
    yield "## How much has been run?"
    yield ""
    finished = [name for name, each in stages.items() if each.of == each.done]
    if not done:
        yield "Nothing yet: the store is empty, and no question of the plan has an answer."
    elif len(finished) == len(stages):
        yield f"All of it: {done} rows."
    else:
        yield f"{len(finished)} of {len(stages)} stages are finished; what the others would tell is open."
    yield ""
    rows = []
    for name, each in stages.items():
        left = (each.of or 0) - each.done
        lacking = f"{left} of {each.of} rows" if each.of is not None else each.waiting
        rows.append(
            (f"`{name}`", plan.stages[name].setting, str(each.done), lacking if left or each.of is None else "")
        )
    yield from _table(("Stage", "Setting", "Rows stored", "Missing"), rows)


def _chosen(plan: Plan, store: Path) -> Iterator[str]:
    """What was fixed before the runs that confirm."""
    choices = choices_of(store)
    if OURS not in choices:
        return
    yield "## What was chosen?"
    yield ""
    yield f"Ours is `{choices[OURS]}`, the runner-up `{choices[NEXT]}`."
    yield f"Mean gains over `{plan.baseline}` in points, on seen languages and on the half of the unseen ones"
    yield "that fixes knobs and is not reported."
    yield ""
    gains = sorted(choices["knobs"].items(), key=lambda each: -each[1]["knob_half"])
    rows = [(f"`{name}`", f"{own['seen']:+.2f}", f"{own['knob_half']:+.2f}") for name, own in gains]
    yield from _table(("Contender", "Seen", "Knob half"), rows)


def _pilot(plan: Plan, store: Path) -> Iterator[str]:
    """The spread of paired differences, of the pilot and every other stage with pairs at one rate a contender."""
    one_rate = [name for name, stage in plan.stages.items() if stage.rates not in WORDS]
    found = [(name, each) for name in one_rate for each in paired(plan, store, name)]
    if not found:
        return
    yield "## How much do paired differences spread?"
    yield ""
    yield f"Contenders against `{plan.baseline}` on the same seeds, unseen languages that are reported:"
    yield "the SD over seeds, the standard error by resampled test rows, and the SDs of seeds, languages and the"
    yield "rest as crossed random effects, in points."
    yield ""
    rows = []
    for name, each in found:
        parts = each.unseen.components
        spread = ("", "", "") if parts is None else tuple(f"{v**0.5:.2f}" for v in vars(parts).values())
        error = each.unseen.test[0] ** 0.5
        rows.append(
            (f"`{name}`", f"`{each.contender}`", str(each.seeds[0]), f"{each.unseen.sd:.2f}", f"{error:.2f}", *spread)
        )
    head = ("Stage", "Contender", "Seeds", "SD", "Test rows", "Seeds' SD", "Languages' SD", "Rest")
    yield from _table(head, rows)


def _main(plan: Plan, store: Path) -> Iterator[str]:
    """The main contrast in every setting, with its verdict."""
    found = confirmed(plan, store)
    yield "## Does a default beat tuned mixed batches?"
    yield ""
    if not found:
        yield "Not known: no confirming stage has two paired seeds yet."
        return
    yield f"Differences from `{plan.baseline}` in points, for these unseen languages and for new ones like them."
    yield "The intervals have the level of the look; p, times 0.05 over that level, is corrected by Holm's method over"
    yield "the settings."
    yield ""
    yield from _table(MAIN, [_main_row(each) for each in found])
    yield ""
    for each in found:
        ordered = sorted(each.unseen.by_language.items(), key=lambda one: one[1])
        ends = (f"{language} {gain:+.1f}" for language, gain in (*ordered[:MOST_NAMED], *ordered[-MOST_NAMED:]))
        extremes = ", ".join(dict.fromkeys(ends))
        yield f"- {each.setting}, `{each.contender}`: the languages that lose and gain most are {extremes}."


def _main_row(each: Compared) -> tuple[str, ...]:
    said = each.verdict or f"none before the {'end' if each.look == 'half' else 'next look'}"
    p = "" if each.corrected is None else f"< {SMALLEST}" if each.corrected < SMALLEST else f"{each.corrected:.3f}"
    return (
        each.setting,
        f"`{each.contender}`",
        f"{each.seeds[0]} of {each.seeds[1]}",
        f"{1 - each.alpha:.3f}",
        _interval(each.unseen.these),
        _interval(each.unseen.new),
        _interval(each.seen.these),
        p,
        said,
    )


def _interval(found: Estimate | None) -> str:
    return "" if found is None else f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _causes(plan: Plan, store: Path) -> Iterator[str]:
    """Contenders that have some parts of a method, beside the baseline and beside each other."""
    found = of_kind(plan, "cause", partial(_cause_rows, plan, store))
    if not found:
        return
    yield "## No momentum, averages, batches of one language, or their order?"
    yield ""
    yield "Each at its own rate: differences in points on the reported unseen languages, 95 %, for these languages;"
    yield "no claim, as the same seeds chose among some of them."
    yield "`lookahead` has the slow weights alone, `sequential` the batches of one language alone."
    yield "`mixed-no-momentum` lacks momentum as `reptile-permuted` does, `lookahead-12` has its K, too, and"
    yield "`reptile-random-12` all but the order."
    for head, *rows in found.values():
        yield ""
        yield from _table(head, rows)


def _cause_rows(plan: Plan, store: Path, name: str) -> list[tuple[str, ...]]:
    """The table's head, and a row for each contender; nothing before there are two pairs.

    What is subtracted is each of the first three: the plan begins with the baseline and two variants of ours.
    """
    stage, drifts = plan.stages[name], dict[str, list[float]]()
    rates = {}
    for row, each in rows_of(plan, store, name).items():
        rates[row.contender] = plan.rate.at(row.step)
        drifts.setdefault(row.contender, []).extend([] if each.failed else [each.results["drift"]])
    bases = list(stage.contenders[:3])
    columns = [{one.contender: one.unseen.these for one in paired(plan, store, name, base)} for base in bases]
    rows = [
        (f"`{k}`", f"{rates[k]:.3g}", f"{fmean(drifts[k]):.1f}", *(_interval(column.get(k)) for column in columns))
        for k in stage.contenders
        if any(k in column for column in columns)
    ]
    return [(f"`{name}`", "Rate", "Drift", *(f"minus `{base}`" for base in bases)), *rows] if rows else []


def _why(plan: Plan, store: Path) -> Iterator[str]:
    """What the probes say where the loss is the same, and of finished models."""
    found = of_kind(plan, "why", partial(probed, plan, store))
    if not found:
        return
    yield "## Are gradients aligned, and is less forgotten?"
    yield ""
    yield "The mean cosine of the languages' gradients, and drift, where the mean loss of the same 64 dev examples of"
    yield "each language is the same; of the finished models the translations that they find (percent) and the loss of"
    yield "masked tokens (nats). Means over seeds, in brackets the lowest and the highest; no claim."
    for name, contenders in found.items():
        yield ""
        yield from _table(
            (f"`{name}`", *(f"{what} at {loss:g}" for what in ("Cosine", "Drift") for loss in LOSSES)),
            [
                (f"`{k}`", *(_range(v.cosines[at], 3) for at in LOSSES), *(_range(v.drifts[at], 1) for at in LOSSES))
                for k, v in contenders.items()
            ],
        )
        places = [(probe, side) for probe, sides in next(iter(contenders.values())).skills.items() for side in sides]
        yield ""
        yield from _table(
            (f"`{name}`", *(f"{probe.replace('_', ' ')}, {side}" for probe, side in places)),
            [(f"`{k}`", *(_range(v.skills[p][side], DIGITS[p]) for p, side in places)) for k, v in contenders.items()],
        )


def _range(values: Sequence[float], digits: int) -> str:
    """Their mean, and between which they lie."""
    if not values:
        return ""
    low, mean, high = (f"{value:.{digits}f}" for value in (min(values), fmean(values), max(values)))
    return f"{mean} [{low}, {high}]"


def _robust(plan: Plan, store: Path) -> Iterator[str]:
    """The area under the score-rate curve."""
    found = dict(
        pair for own in of_kind(plan, "robust", partial(robustness, plan, store)).values() for pair in own.items()
    )
    if not found:
        return
    rates = ", ".join(f"{plan.rate.at(step):.3g}" for step in plan.rate.first)
    yield "## How much does a wrong rate cost?"
    yield ""
    yield f"The unseen score averaged over the rates {rates} (area over log rate, by its width),"
    yield f"minus that of `{plan.baseline}`; 95 %."
    yield ""
    rows = [(f"`{k}`", str(len(v.by_seed)), _interval(v.these), _interval(v.new)) for k, v in found.items()]
    yield from _table(("Contender", "Seeds", "These languages", "New languages"), rows)


def _rates(plan: Plan, store: Path) -> Iterator[str]:
    """The scores on dev that choose rates."""
    tables = of_kind(plan, "rates", partial(rate_table, plan, store))
    if not tables:
        return
    yield "## Which rate?"
    yield ""
    yield "Mean scores on dev, which is never reported; the best in bold."
    for name, table in tables.items():
        steps = sorted({step for own in table.values() for step in own})
        rows = [(f"`{k}`", *(_dev(own, step) for step in steps)) for k, own in table.items()]
        yield ""
        yield from _table((f"`{name}`", *(f"{plan.rate.at(step):.3g}" for step in steps)), rows)


def _dev(own: dict[int, float], step: int) -> str:
    if step not in own:
        return ""
    return f"**{own[step]:.2f}**" if own[step] == max(own.values()) else f"{own[step]:.2f}"


def _others(plan: Plan, store: Path) -> Iterator[str]:
    """Methods with a seed or few: the lowest and the highest, no claim."""
    found = [pair for own in of_kind(plan, "others", partial(rows_of, plan, store)).values() for pair in own.items()]
    if not found:
        return
    yield "## Other methods"
    yield ""
    yield "One seed each: no claim. All unseen languages."
    yield ""
    rows = []
    for row, each in found:
        average = {"seen": None, "unseen": None} if each.failed else each.results["average"]
        scores = ("diverged" if value is None else f"{value:.2f}" for value in average.values())
        drift = "" if each.failed or each.results["drift"] is None else f"{each.results['drift']:.1f}"
        rows.append((row.setting, f"`{row.contender}`", f"{plan.rate.at(row.step):.3g}", *scores, drift))
    yield from _table(("Setting", "Contender", "Rate", "Seen", "Unseen", "Drift"), rows)


def _machines(plan: Plan, store: Path) -> Iterator[str]:
    """Where the rows were made, and what is missing to know."""
    found = [row for name in plan.stages for row in rows_of(plan, store, name).values()]
    if not found:
        return
    processors = sorted({row.processor for row in found})
    versions = sorted(
        {", ".join(f"{k} {v}" for k, v in row.results["versions"].items()) for row in found if not row.failed}
    )
    failed = sum(row.failed for row in found)
    yield "## Where was it run?"
    yield ""
    yield f"Processors: {'; '.join(processors)}. Versions: {'; '.join(versions)}. Rows that diverged: {failed}."
    unseen = next((list(row.scores("unseen")) for row in found if row.row["setting"] == "A0" and not row.failed), [])
    if unseen:
        halves = ([k for k in unseen if in_knob_half(k) is side] for side in (True, False))
        knob, rest = (", ".join(half) for half in halves)
        yield f"Knobs were fixed on {knob}; reported are {rest}."


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/evidence.md from the store.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is what the store gives")
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    now = given.page.read_text(encoding="utf-8")
    new = with_section(now, rendered(read(given.plan), given.store))
    if given.check:
        if now != new:
            raise SystemExit(f"{given.page}: is not what the store gives; python bench/evidence/page.py writes it")
        print(f"{given.page}: is what the store gives")
    else:
        given.page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()

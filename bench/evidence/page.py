"""Write what the store says into docs/evidence.md, between its markers, and draw its picture.

python bench/evidence/page.py [--check]

--check changes nothing, and ends with 1 where the page is not what the store gives.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from pathlib import Path
from statistics import fmean

from analyse import (
    LOSSES,
    AtRate,
    Compared,
    confirmed,
    of_kind,
    paired,
    probed,
    progress,
    rate_table,
    robustness,
    rows_of,
    score_table,
)
from choosing import choices_of, seeds_of
from design import chosen, contenders, machines, settings, state
from inference import Estimate, power
from markdown_parts import paragraph, table
from picture import draw
from plan import GRID, PLAN, ROOT, STORE, Plan, read
from verdicts import BETTER, LEVEL, UNDECIDED, WORSE

PAGE = ROOT / "docs" / "evidence.md"
BEGIN, END = "<!-- from bench/evidence/store: begin -->", "<!-- from bench/evidence/store: end -->"
PICTURE = Path("figures") / "evidence.png"
"""Beside the page."""
SMALLEST = 0.001
"""A smaller p is not spelt out."""
MOST_NAMED = 3
DIGITS = {"retrieval": 1, "masked_lm": 2}
"""Of percent, and of nats, which differ by less."""
WORDED = {BETTER: "*better* than", WORSE: "*worse* than", LEVEL: "*level* with", UNDECIDED: "*undecided* against"}
MAIN = ("Setting", "Contender", "Seeds", "Level", "Unseen, these", "Unseen, new", "Seen, these", "p", "Verdict")


def rendered(plan: Plan, store: Path) -> str:
    """All that stands between the markers."""
    found = confirmed(plan, store)
    parts = [
        _answer(plan, found),
        state(plan, store),
        settings(plan, store),
        contenders(plan, store),
        chosen(plan, store),
        _pilot(plan, store),
        _main(plan, found),
        _causes(plan, store),
        _why(plan, store),
        _robust(plan, store),
        _rates(plan, store),
        _others(plan, store),
        machines(plan, store),
    ]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part)


def with_section(page: str, section: str) -> str:
    """A page with another section between its markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{rest.split(END)[1]}"


def _answer(plan: Plan, found: Sequence[Compared]) -> Iterator[str]:
    """What is said of all that is tested where that is confirmed, and where the plan's question is open."""
    yield "## What is the answer so far?"
    yield ""
    known = [each for each in found if each.verdict and each.corrected is not None]
    places = dict.fromkeys(stage.setting for stage in plan.stages.values() if stage.kind == "confirm")
    for each in known:
        unseen, seen = (_interval(contrast.these) for contrast in (each.unseen, each.seen))
        yield f"- {each.setting}: `{each.contender}` is {WORDED[each.verdict]} `{plan.baseline}`,"
        yield f"  by {unseen} points on unseen languages, {seen} on seen ones."
    if left := [place for place in places if place not in {each.setting for each in known}]:
        yield f"- No answer yet in {', '.join(left)}."
    if known:
        yield ""
        yield f"![Differences from {plan.baseline} on unseen and on seen languages, with their intervals]({PICTURE})"
        yield ""
        yield from paragraph(
            "Thick lines are the intervals for these languages, by which the verdict goes, thin ones those for other",
            f"languages, too. Seen languages may lose {plan.margins['seen']:g} points (dotted).",
        )


def _pilot(plan: Plan, store: Path) -> Iterator[str]:
    """The spread of paired differences, of the pilot and every other stage with pairs at one rate a contender."""
    one_rate = [name for name, stage in plan.stages.items() if stage.rates != GRID and not stage.steps]
    found = [(name, each) for name in one_rate for each in paired(plan, store, name)]
    if not found:
        return
    yield "## How much do paired differences spread?"
    yield ""
    yield from paragraph(
        f"Contenders minus `{plan.baseline}` on the same seeds, mean over the unseen languages that are reported, in",
        "points: the SD of this difference from seed to seed, and its standard error by the choice of test rows. The",
        "last three columns divide the differences of single languages into what goes with the seed, with the",
        "language, or neither.",
    )
    yield ""
    if planned := [*_planned(plan, store)]:
        yield from paragraph(
            f"How many seeds a comparison needs follows from the pilot. A difference of {plan.power['of']:g} point is",
            f"found by {', by '.join(planned)}.",
        )
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
    yield from table(head, rows)


def _planned(plan: Plan, store: Path) -> Iterator[str]:
    """Each stage whose seeds the pilot decides, its seeds, and their power."""
    choices = choices_of(store)
    for name, stage in plan.stages.items():
        if "pilot" in choices and not stage.seeds.count:
            seeds, pilot = len(seeds_of(plan, stage, choices)), choices["pilot"]
            found = power(seeds, pilot["sd"], pilot["test_variance"], plan.power["of"])
            yield f"{seeds} seeds (`{name}`) in {100 * found:.0f} studies of a hundred"


def _main(plan: Plan, found: Sequence[Compared]) -> Iterator[str]:
    """The main contrast in every setting, with its verdict."""
    yield "## Does a default beat tuned mixed batches?"
    yield ""
    if not found:
        yield "Not known: no confirming stage has two paired seeds yet."
        return
    yield from paragraph(
        f"Contenders minus `{plan.baseline}` in points, on the same seeds, each at its own rate. *These*: the interval",
        "for other seeds and other test rows of the same languages; the verdict goes by it. *New*: the interval for",
        "other languages, too. All have the level beside them, as 5 % of error are shared by a look at half of the",
        "seeds and one at the end. p is that of no difference on these unseen languages, times 0.05 over one minus the",
        "level, and corrected over all that is tested by Holm's method. The plan tests no runner-up, which has no p.",
    )
    yield ""
    yield from table(MAIN, [_main_row(each) for each in found])
    yield ""
    for each in found:
        ordered = sorted(each.unseen.by_language.items(), key=lambda one: one[1])
        ends = (f"{language} {gain:+.1f}" for language, gain in (*ordered[:MOST_NAMED], *ordered[-MOST_NAMED:]))
        extremes = ", ".join(dict.fromkeys(ends))
        yield f"- {each.setting}, `{each.contender}`: the languages that lose and gain most are {extremes}."
        if each.unseen.diverged:
            yield f"  {each.unseen.diverged} runs of the two have diverged: each has a score of 0."


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
    yield from paragraph(
        "Each at its own rate: differences in points on the reported unseen languages, and in the last column on seen",
        "ones, 95 %, for these languages; no claim, as the same seeds chose among some of them. `lookahead` has the",
        "slow weights alone, `sequential` the batches of one language alone. `mixed-no-momentum` lacks momentum as",
        "`reptile-permuted` does, `lookahead-12` has its K, too, and `reptile-random-12` all but the order.",
    )
    for head, *rows in found.values():
        yield ""
        yield from table(head, rows)


def _cause_rows(plan: Plan, store: Path, name: str) -> list[tuple[str, ...]]:
    """The table's head, and a row for each contender; nothing before there are two pairs.

    What is subtracted is each of the first three: the plan begins with the baseline and two variants of ours. On seen
    languages it is the baseline alone.
    """
    stage, drifts = plan.stages[name], dict[str, list[float]]()
    rates = {}
    for row, each in rows_of(plan, store, name).items():
        rates[row.contender] = plan.rate.at(row.step)
        drifts.setdefault(row.contender, []).extend([] if each.failed else [each.results["drift"]])
    bases = list(stage.contenders[:3])
    pairs = [{one.contender: one for one in paired(plan, store, name, base)} for base in bases]
    columns = [{k: one.unseen.these for k, one in column.items()} for column in pairs]
    columns.append({k: one.seen.these for k, one in pairs[0].items()})
    rows = [
        (f"`{k}`", f"{rates[k]:.3g}", _mean(drifts[k]), *(_interval(column.get(k)) for column in columns))
        for k in stage.contenders
        if any(k in column for column in columns)
    ]
    head = (f"`{name}`", "Rate", "Drift", *(f"minus `{base}`" for base in bases), f"seen, minus `{bases[0]}`")
    return [head, *rows] if rows else []


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f}" if values else ""


def _why(plan: Plan, store: Path) -> Iterator[str]:
    """What the probes say where the loss is the same, and of finished models."""
    found = of_kind(plan, "why", partial(probed, plan, store))
    if not found:
        return
    yield "## Are gradients aligned, and is less forgotten?"
    yield ""
    yield from paragraph(
        "The mean cosine of the languages' gradients, and drift, where the mean loss of the same 64 dev examples of",
        "each language is the same; of the finished models the translations that they find (percent) and the loss of",
        "masked tokens (nats). Means over seeds, in brackets the lowest and the highest; no claim.",
    )
    for name, own in found.items():
        yield ""
        yield from table(
            (f"`{name}`", *(f"{what} at {loss:g}" for what in ("Cosine", "Drift") for loss in LOSSES)),
            [
                (f"`{k}`", *(_range(v.cosines[at], 3) for at in LOSSES), *(_range(v.drifts[at], 1) for at in LOSSES))
                for k, v in own.items()
            ],
        )
        places = [(probe, side) for probe, sides in next(iter(own.values())).skills.items() for side in sides]
        yield ""
        yield from table(
            (f"`{name}`", *(f"{probe.replace('_', ' ')}, {side}" for probe, side in places)),
            [(f"`{k}`", *(_range(v.skills[p][side], DIGITS[p]) for p, side in places)) for k, v in own.items()],
        )


def _range(values: Sequence[float], digits: int) -> str:
    """Their mean, and between which they lie."""
    if not values:
        return ""
    low, mean, high = (f"{value:.{digits}f}" for value in (min(values), fmean(values), max(values)))
    return f"{mean} [{low}, {high}]"


def _robust(plan: Plan, store: Path) -> Iterator[str]:
    """The area under the score-rate curve."""
    found = of_kind(plan, "robust", partial(robustness, plan, store))
    if not found:
        return
    yield "## How much does a wrong rate cost?"
    yield ""
    yield from paragraph(
        f"The unseen score averaged over rates (area over log rate, by its width), minus that of `{plan.baseline}`, in",
        "points; 95 %. Above zero, the contender is better at a rate that nobody tuned. A run that diverged has a",
        "score of 0.",
    )
    yield ""
    rows = []
    for name, own in found.items():
        rates = [f"{plan.rate.at(step):.3g}" for step in plan.stages[name].steps]
        for contender, each in own.items():
            counts = (str(len(each.by_seed)), str(each.diverged))
            between = f"{rates[0]} to {rates[-1]}"
            rows.append((between, f"`{contender}`", *counts, _interval(each.these), _interval(each.new)))
    head = ("Rates", "Contender", "Seeds", "Runs of both that diverged", "These languages", "New languages")
    yield from table(head, rows)


def _rates(plan: Plan, store: Path) -> Iterator[str]:
    """The scores on dev that choose rates."""
    tables = of_kind(plan, "rates", partial(rate_table, plan, store))
    if not tables:
        return
    yield "## Which rate?"
    yield ""
    yield from paragraph(
        "Mean scores on dev of the training languages, which is never reported. The best, in bold, is at the rate that",
        "the contender has in later stages. Where a best stood at an edge, each contender was tried at one more rate.",
    )
    stages = progress(plan, store)
    for name, scores in tables.items():
        steps = sorted({step for own in scores.values() for step in own})
        rows = [(f"`{k}`", *(_dev(own, step) for step in steps)) for k, own in scores.items()]
        yield ""
        if stages[name].done != stages[name].of:
            yield f"`{name}` is not finished: some scores are of fewer seeds than others, and nothing is chosen yet."
            yield ""
        yield from table((f"`{name}`", *(f"{plan.rate.at(step):.3g}" for step in steps)), rows)
    yield ""
    yield from paragraph(
        "The same runs on test rows: seen languages / reported unseen ones / how far the weights drifted. Few seeds,",
        "no claim, and nothing was chosen by these figures.",
    )
    for name in tables:
        found = score_table(plan, store, name)
        steps = sorted({step for own in found.values() for step in own})
        rows = [(f"`{k}`", *(_at_rate(own.get(step)) for step in steps)) for k, own in found.items()]
        yield ""
        yield from table((f"`{name}`", *(f"{plan.rate.at(step):.3g}" for step in steps)), rows)


def _at_rate(found: AtRate | None) -> str:
    if found is None:
        return ""
    drift = "" if found.drift is None else f" / {found.drift:.1f}"
    return f"{found.seen:.1f} / {found.unseen:.1f}{drift}"


def _dev(own: dict[int, float], step: int) -> str:
    if step not in own:
        return ""
    if own[step] == -inf:
        return "diverged"
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
    yield from table(("Setting", "Contender", "Rate", "Seen", "Unseen", "Drift"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/evidence.md from the store.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is what the store gives")
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    now, plan = given.page.read_text(encoding="utf-8"), read(given.plan)
    new = with_section(now, rendered(plan, given.store))
    if given.check:
        if now != new:
            raise SystemExit(f"{given.page}: is not what the store gives; python bench/evidence/page.py writes it")
        print(f"{given.page}: is what the store gives")
    else:
        given.page.write_text(new, encoding="utf-8")
        picture = given.page.parent / PICTURE
        picture.parent.mkdir(exist_ok=True)
        draw(plan, confirmed(plan, given.store)).savefig(picture)


if __name__ == "__main__":
    main()

"""The sections of docs/evidence.md that say how the study is made: what has been run, on what, who competes, where."""

from collections.abc import Iterator
from pathlib import Path

from analyse import progress, rows_of
from choosing import choices_of
from contrasts import in_knob_half
from markdown_tables import table
from plan import NEXT, OURS, Contender, Plan
from store import Stored


def state(plan: Plan, store: Path) -> Iterator[str]:
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
    yield from table(("Stage", "Setting", "Rows stored", "Missing"), rows)


def settings(plan: Plan, store: Path) -> Iterator[str]:
    """Data, sizes and scores of the settings of which something is stored."""
    rows: dict[str, tuple[str, ...]] = {}
    for name in plan.stages:
        for row, each in rows_of(plan, store, name).items():
            if not each.failed:
                rows.setdefault(row.setting, _setting_row(row.setting, each))
    if not rows:
        return
    yield "## What do they train and test on?"
    yield ""
    yield "Training reads seen languages alone. A point is one percent of the score, averaged over languages."
    yield ""
    yield from table(("Setting", "Data", "Layers", "Gradients", "Seen", "Unseen", "Score"), [*rows.values()])


def _setting_row(setting: str, each: Stored) -> tuple[str, ...]:
    recipe = each.recipe
    layers = "all" if recipe["layers"] is None else str(recipe["layers"])
    languages = (str(len(each.scores(side))) for side in ("seen", "unseen"))
    return (setting, recipe["data"], layers, str(recipe["budget"]), *languages, each.results["metric"])


def contenders(plan: Plan, store: Path) -> Iterator[str]:
    """What stands behind the names of contenders of which something is stored."""
    names = dict.fromkeys(row.contender for name in plan.stages for row in rows_of(plan, store, name))
    if not names:
        return
    yield "## Who competes?"
    yield ""
    yield "Each name stands for keys of a [recipe](recipes.md). All other keys are alike, but for the learning rate."
    yield ""
    yield from table(("Contender", "Is"), [(f"`{name}`", _described(plan.contenders[name])) for name in names])


def _described(contender: Contender) -> str:
    """A contender's keys as a recipe has them, or the runs between which and pretraining it lies."""
    if contender.of:
        back = f"moved back by {100 * (1 - contender.weight):.0f} %"
        return f"runs of `{contender.of}`, {back} toward the pretrained weights by [`multitune merge`](means.md)"
    keys = dict(contender.keys)
    options = {f"options.{key}": value for key, value in keys.pop("options", {}).items()}
    return ", ".join(f"`{key}: {value}`".replace("'", "") for key, value in (keys | options).items())


def chosen(plan: Plan, store: Path) -> Iterator[str]:
    """What was fixed before the runs that confirm."""
    choices = choices_of(store)
    if OURS not in choices:
        return
    yield "## What was chosen?"
    yield ""
    yield f"Ours is `{choices[OURS]}`, the runner-up `{choices[NEXT]}`. Of the contenders that lose at most"
    yield f"{plan.margins['seen']:g} points on seen languages, these two gain most on the knob half of the unseen"
    yield "ones. That half serves this choice, and no comparison below has it."
    yield f"Mean gains over `{plan.baseline}` in points:"
    yield ""
    gains = sorted(choices["knobs"].items(), key=lambda each: -each[1]["knob_half"])
    rows = [(f"`{name}`", f"{own['seen']:+.2f}", f"{own['knob_half']:+.2f}") for name, own in gains]
    yield from table(("Contender", "Seen", "Knob half"), rows)


def machines(plan: Plan, store: Path) -> Iterator[str]:
    """Where the rows were made, and what is missing to know."""
    found = [*{row: each for name in plan.stages for row, each in rows_of(plan, store, name).items()}.values()]
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

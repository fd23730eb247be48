"""docs/run-folder.md, made of this package's types: ``python -m multitune.results.document > docs/run-folder.md``."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from multitune.results.clusters import Clusters
from multitune.results.comparison import Comparison
from multitune.results.merged import Merged
from multitune.results.metrics import EVENTS, Event
from multitune.results.predictions import Prediction
from multitune.results.probes import Findings
from multitune.results.run import RunResult, Sides
from multitune.results.sweep import Sweep

INTRODUCTION = """# What is in a run folder?

A run folder holds a run's recipe, its log, its scores and predictions, its model and its report.

| File | Holds |
|---|---|
| `recipe.yaml` | the resolved recipe, with the precision and number of threads that were settled at its start; `multitune train` on it repeats the run |
| `data/` | the rows that [`mt.train(data=...)`](data.md#from-python) was given |
| `metrics.jsonl` | what happened while the run trained, [an event a line](#event-a-line-of-metricsjsonl) |
| `results.json` | [scores by language, averages, drift, cost, versions](#runresult-resultsjson-of-a-run) |
| `predictions.jsonl` | [every test record with its prediction](#prediction-a-line-of-predictionsjsonl), a line each; intervals are computed from it |
| `clusters.json` | what the [pseudo-tasks](pseudo-tasks.md) are, [where there are any](#clusters-clustersjson) |
| `probes.json` | what `multitune probe` [measured](#findings-probesjson) |
| `report.html` | the answer and what it rests on, in [one page](report.md) |
| `model/` | an ordinary Hugging Face model with its tokenizer and its [card](hub.md), `README.md`; a folder a language for `stl`, and a folder a task where tasks have heads of their own |
| `adapter/` | of a run with [`lora`](lora.md): adapters and head, as `PeftModel.from_pretrained` loads them |
| `checkpoints/` | what `--resume` [goes on from](reliability.md) |
| `languages/` | of `stl`: the run folder of each language |

`multitune train` writes to `runs/RECIPE-METHOD-seedN`, and where that is taken to `...-2` and so on; `--resume` goes on with the
newest of them. `--out` names another folder; `--overwrite` removes the run that is in it (or in the first of them) and begins
anew, and refuses a folder with files that no run writes. A .gitignore in `runs/` keeps git from seeing it; write one of your own
there, and it stays.

A comparison's folder has a run folder for each run, a report.html and [a results.json of its own](#comparison-resultsjson-of-a-comparison).
A sweep's folder has a comparison's for each rung, `winner.yaml` and [sweep.json](#sweep-sweepjson).
The folder of a [merge](means.md) has `model/`, `recipe.yaml` (the first run's), [merge.json](#merged-mergejson) and `front` as
PNG, SVG and PDF.

The JSON is strict and in UTF-8. `null` stands for a number that is not finite, and for what there is none of. Each file, and
each line of a `.jsonl`, has a `schema`: a number that rises when a key goes or changes its meaning. It is 1 today, and files
without it, which version 0.1.0 wrote, are read as schema 1. Readers pass over keys that they do not know; a file of another
schema, or a damaged one, is named in one line.

```python
import multitune as mt

run = mt.RunResult.read("runs/demo-mtl")  # mt.Comparison.read("runs/demo") of a comparison
print(run.average.seen, run.seen["de"]["accuracy"])
rows = run.to_records()  # pandas.DataFrame(rows): a row for each language and metric
```

`multitune.results` has the readers of the others: `Findings.read`, `Clusters.read`, `Merged.read`, `Sweep.read`, `read_events` and `read_predictions` take
the folder, too. None of them loads torch.

This page is made of their types: `python -m multitune.results.document`.
"""  # noqa: E501 - rows of a table
FILES: dict[type, str] = {
    RunResult: "results.json of a run",
    Comparison: "results.json of a comparison",
    Event: "a line of metrics.jsonl",
    **{kind: f'event "{name}"' for name, kind in EVENTS.items()},
    Prediction: "a line of predictions.jsonl",
    Findings: "probes.json",
    Clusters: "clusters.json",
    Merged: "merge.json",
    Sweep: "sweep.json",
}
"""What stands in a heading beside a type's name."""
WORDS = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null", Any: "any JSON"}


def page() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *(line for kind in _in_order() for line in section(kind))]).rstrip() + "\n"


def _in_order() -> list[type]:
    """Every type: those of whole files and lines, each followed by those that it is made of."""
    order: dict[type, None] = {}
    for kind in FILES:
        _collect(kind, order)
    return list(order)


def _collect(kind: type, order: dict[type, None]) -> None:
    if kind not in order:
        order[kind] = None
        for part in [*_bases(kind), *(part for _, hint in _own(kind) for part in _types(hint))]:
            _collect(part, order)


def section(kind: type) -> Iterator[str]:
    """A type's heading, text and table.

    Raises:
        KeyError: its docstring does not say what a key holds.
    """
    text, holds = described(kind)
    bases = _bases(kind)
    yield f"{'##' if kind in FILES else '###'} {_heading(kind)}\n"
    yield text + (f" Has the keys of {' and '.join(map(_link, bases))}, and:\n" if bases else "\n")
    yield "| Key | Type | Holds |\n|---|---|---|"
    for name, hint in _own(kind):
        yield f"| `{name}` | {_shown(hint)} | {holds[name]} |"
    yield ""


def _own(kind: type) -> list[tuple[str, Any]]:
    """The keys that a type adds to those of its bases, and their types."""
    hints = get_type_hints(kind, include_extras=True)
    inherited = {field.name for base in _bases(kind) for field in fields(base)}
    return [(field.name, hints[field.name]) for field in fields(kind) if field.name not in inherited]


def _bases(kind: type) -> list[type]:
    """The types that it takes keys from."""
    return [base for base in kind.__bases__ if is_dataclass(base) and fields(base)]


def described(kind: type) -> tuple[str, dict[str, str]]:
    """The text of a type's docstring, and what it says of each key."""
    text, _, attributes = inspect.cleandoc(kind.__doc__ or "").replace("``", "`").partition("\n\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    return " ".join(text.split()), {name: " ".join(said.split()).removesuffix(".") for name, said in entries}


def _types(hint: Any) -> Iterator[type]:
    """The documented types in a type."""
    if is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _types(part)


def _shown(hint: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_shown, parts))
    if origin is list:
        element = _shown(parts[0])
        return f"list of ({element})" if " or " in element else f"list of {element}"
    if origin is dict:
        return f"{{{_key(parts[0])}: {_shown(parts[1])}}}"
    if origin is Sides:
        return f'{{"seen": {_shown(parts[0])}, "unseen": {_shown(parts[0])}}}'
    return WORDS[hint] if hint in WORDS else _link(hint)


def _key(hint: Any) -> str:
    """What the keys of a mapping are."""
    return str(get_args(hint)[1]) if get_origin(hint) is Annotated else "key"


def anchor(heading: str) -> str:
    """What a link to a heading is written with."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _link(kind: type) -> str:
    return f"[{kind.__name__}](#{anchor(_heading(kind))})"


def _heading(kind: type) -> str:
    return f"{kind.__name__}: {FILES[kind]}" if kind in FILES else kind.__name__


if __name__ == "__main__":
    print(page(), end="")

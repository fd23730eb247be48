"""What is kept of a run: its recipe and results as JSON, statistics of its test examples as npz; no text, no model.

The examples' clusters are those of a setting: one npz for all of its runs, which have to be tested alike.
"""

import hashlib
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune.storage.atomic import replaced
from plan import Plan, Row

Array = NDArray[np.float64]
Labels = NDArray[np.uint16]
LEFT_OUT = ("by_class", "digests")
"""Keys of results.json that the statistics or the setting's digest say as well."""
CLUSTERS = "clusters.npz"


@dataclass(frozen=True)
class Stored:
    """A row of the store.

    Attributes:
        task: the kind, which says how statistics become scores.
        processor: the model that /proc/cpuinfo names.
        data: a digest of train, dev and test records.
        results: results.json without ``LEFT_OUT``, with the main metric's scores alone; of a run that diverged only
            ``failed``, which says how.
        recipe: the whole one that was trained.
        probes: of a run that was probed, in their order: ``gradients``, the mean ``loss`` and ``cosine`` of its
            languages, ``drift``.
        skills: of such a run, by probe: what its model still can, "seen" and "unseen", and what the pretrained
            one could.
    """

    row: dict[str, Any]
    task: str
    processor: str
    data: str
    results: dict[str, Any]
    recipe: dict[str, Any]
    path: Path
    probes: list[dict[str, float]] = field(default_factory=list)
    skills: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return "failed" in self.results

    @property
    def dev(self) -> float:
        """The average on dev; below every other where there is none."""
        dev = None if self.failed else self.results["shipped"]["dev"]
        return float("-inf") if dev is None else float(dev)

    def scores(self, side: str) -> dict[str, float]:
        """Language -> main score in percent, "seen" or "unseen"; empty of a run that diverged."""
        return {} if self.failed else dict(self.results[side])

    @cached_property
    def statistics(self) -> dict[str, Array]:
        """Language -> [examples, statistics]."""
        return {k: v.astype(np.float64) for k, v in _arrays(self.path.with_suffix(".npz")).items()}


def processor() -> str:
    """The processor's name, and whether it has bf16 instructions."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    bf16 = {"avx512_bf16", "amx_bf16"} & {*said.get("flags", "").split()}
    return f"{said.get('model name', platform.processor() or platform.machine())}, {'' if bf16 else 'no '}bf16"


def kept(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results as the store has them."""
    sides = {
        side: {language: scores[results["metric"]] for language, scores in results[side].items()}
        for side in ("seen", "unseen")
    }
    return {key: value for key, value in results.items() if key not in LEFT_OUT} | sides


def digest(results: Mapping[str, Any]) -> str:
    """One hash of all records that a run saw."""
    text = json.dumps(results["digests"], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def write(store: Path, plan: Plan, row: Row, record: Mapping[str, Any], statistics: Mapping[str, Array]) -> None:
    """Store a row; its JSON comes last and says that it is whole."""
    path = store / plan.stem(row)
    _write_arrays(path.with_suffix(".npz"), statistics)
    with replaced(path.with_suffix(".json")) as beside:
        content = {"row": asdict(row), "processor": processor(), **record}
        beside.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_clusters(store: Path, setting: str, clusters: Mapping[str, Labels]) -> None:
    """Store the clusters of a setting's test examples, or check those that are there.

    Raises:
        SystemExit: others are there: the data are not those of the earlier runs.
    """
    path = store / setting / CLUSTERS
    if not path.exists():
        _write_arrays(path, clusters)
    there = read_clusters(store, setting)
    if there.keys() != clusters.keys() or any((there[k] != v).any() for k, v in clusters.items()):
        raise SystemExit(f"{path}: the test examples have other clusters than those of earlier runs")


def read_clusters(store: Path, setting: str) -> dict[str, Labels]:
    """Language -> the cluster of each test example."""
    return _arrays(store / setting / CLUSTERS)


def read(store: Path, plan: Plan, row: Row) -> Stored | None:
    """A row, or None where it is not stored.

    Raises:
        SystemExit: the stored recipe is not the plan's.
    """
    path = (store / plan.stem(row)).with_suffix(".json")
    if not path.exists():
        return None
    found = Stored(**json.loads(path.read_text(encoding="utf-8")), path=path)
    wanted = plan.recipe(row, None).model_dump(mode="json")
    other = [key for key, value in found.recipe.items() if value != wanted[key]]
    if other:
        raise SystemExit(
            f"{path}: was run with other {', '.join(other)} than the plan says; remove it, or mend the plan"
        )
    return found


def clusters(kind: str, rows: Sequence[Mapping[str, Any]]) -> Labels:
    """The cluster of each record of a language, numbered from 0.

    Args:
        kind: "template": the record's; "row": each its own; "row of three": three in a row. "shared" before it says
            that the languages' clusters are the same ones, and changes nothing here.
    """
    places = range(len(rows))
    match kind.removeprefix("shared "):
        case "template":
            names: Iterable[object] = [record["template"] for record in rows]
        case "row":
            names = places
        case "row of three":
            names = [place // 3 for place in places]
        case _:
            raise SystemExit(f"plan: cluster: {kind!r} is none")
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.uint16)


def _small(rows: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the smallest type that holds them all exactly."""
    for kind in (np.uint8, np.uint16, np.int32, np.float32):
        small = rows.astype(kind)
        if (small == rows).all():
            return small
    return rows


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An npz whose bytes depend on the arrays alone: all rows below each other, and how many each language has."""
    buffer, lengths = io.BytesIO(), [len(rows) for rows in arrays.values()]
    rows = _small(np.concatenate([*arrays.values()])) if arrays else np.zeros(0)
    np.savez_compressed(buffer, languages=np.array([*arrays], dtype=np.str_), lengths=np.array(lengths), rows=rows)
    with replaced(path) as beside:
        beside.write_bytes(buffer.getvalue())


@lru_cache(maxsize=1024)
def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """What ``_write_arrays`` wrote, by language."""
    with np.load(path) as file:
        ends = np.cumsum(file["lengths"], dtype=np.int64)[:-1]
        return dict(zip(file["languages"].tolist(), np.split(file["rows"], ends), strict=True))

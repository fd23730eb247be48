"""Run and comparison folders with known contents, written as training, probes and comparisons write them."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.recipe import RecipeFile, parse_overrides, to_yaml
from multitune.report.evidence import Evidence, load

VERSIONS = {"python": "3.11", "multitune": "0.1.0", "torch": "2.13.0"}
HOSTILE = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Contents:
    """What goes into a comparison's folder; runs score 50 + 10 x the method's place + 2 x the seed."""

    methods: Sequence[str] = ("mtl", "sequential_reptile")
    seen: Sequence[str] = ("de", "ar", HOSTILE)
    unseen: Sequence[str] = ("fr", "ja")
    seeds: int = 1
    examples: int = 3
    probed: bool = True
    clusters: int = 0
    grid: Sequence[Mapping[str, Any]] = ({},)

    @property
    def languages(self) -> list[str]:
        return [*self.seen, *self.unseen]

    def score(self, method: str, seed: int) -> float:
        return 50.0 + 10.0 * self.methods.index(method) + 2.0 * seed


def evidence(folder: Path, contents: Contents) -> Evidence:
    """What the report reads of such a folder."""
    return load(comparison(folder / "comparison", contents))


def comparison(folder: Path, contents: Contents) -> Path:
    """Write the folder of a comparison: its runs and its results.json."""
    runs = []
    for point, values in enumerate(contents.grid):
        for method in contents.methods:
            for seed in range(contents.seeds):
                name = f"{method}-{point}-seed{seed}".replace(":", "-")
                result = run(folder / name, contents, method, seed, values)
                runs.append(result | {"folder": name, "grid": dict(values)})
    content = {
        "runs": runs,
        "chosen": {method: dict(contents.grid[0]) for method in contents.methods},
        "metric": "accuracy",
        "baseline": contents.methods[0],
        "interval": "paired bootstrap over test examples",
        "summary": {m: sides(contents, contents.score(m, 0)) for m in contents.methods},
        "pairwise": {m: {o: less(contents, m, o) for o in contents.methods if o != m} for m in contents.methods},
        "differences": {m: less(contents, m, contents.methods[0]) for m in contents.methods[1:]},
    }
    write(folder / "results.json", content)
    return folder


def run(folder: Path, contents: Contents, method: str, seed: int, grid: Mapping[str, Any]) -> dict[str, Any]:
    """Write a run's folder; returns its results."""
    folder.mkdir(parents=True)
    given = RecipeFile(run={"data": "panx", "budget": 96}, methods={}, source="test")
    recipe = given.resolve(method, overrides(grid) | {"seed": seed})
    (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    score = contents.score(method, seed)
    result = {
        "method": method,
        "seed": seed,
        "budget": 96,
        "steps": 96,
        "metric": "accuracy",
        "seen": {language: {"accuracy": score} for language in contents.seen},
        "unseen": {language: {"accuracy": score - 20} for language in contents.unseen},
        "average": {"seen": score, "unseen": score - 20 if contents.unseen else None},
        "drift": 5.0,
        "seconds": 120.0,
        "step_seconds": 96.0,
        "peak_memory_bytes": 2**30,
        "precision": "fp32",
        "threads": 2,
        "shipped": {"select": "last", "gradients": 96, "dev": score},
        "dropped": {"de": 1},
        "versions": VERSIONS,
    }
    write(folder / "results.json", result)
    write_lines(folder / "metrics.jsonl", events(contents, score))
    write_lines(folder / "predictions.jsonl", predictions(contents, contents.methods.index(method)))
    if contents.probed:
        write(folder / "probes.json", probes(contents))
    if contents.clusters:
        write(folder / "clusters.json", division(contents.clusters))
    return result


def events(contents: Contents, score: float) -> list[dict[str, Any]]:
    """Losses, scores and probes, rising to ``score``."""
    lines = []
    for gradients in (24, 48, 72, 96):
        at = {"gradients": gradients, "seconds": 1.25 * gradients}
        lines.append(at | {"event": "train", "loss": 96 / gradients, "learning_rate": 1e-4})
        lines.append(at | {"event": "validate", "average": score * gradients / 96, "drift": gradients / 20, "dev": {}})
        if contents.probed:
            similarity = gradient_similarity(contents.seen)
            layers = {"embeddings": 0.4, "layer 0": 0.2}
            lines.append(
                at | similarity | {"event": "probe", "layers": layers, "drift": 5.0, "drift_by_layer": {"layer 0": 5.0}}
            )
    return lines


def gradient_similarity(languages: Sequence[str]) -> dict[str, Any]:
    """Random cosines, symmetric, with families of two languages each."""
    draw, count = random.Random(0), len(languages)
    cosines = [[1.0] * count for _ in range(count)]
    for row in range(count):
        for column in range(row):
            cosines[row][column] = cosines[column][row] = draw.uniform(-0.3, 0.6)
    return {
        "languages": list(languages),
        "families": [f"family {n // 2}" for n in range(count)],
        "cosines": cosines,
        "cosine": 0.25,
        "norms": [1.0] * count,
        "losses": [2.0] * count,
    }


def probes(contents: Contents) -> dict[str, Any]:
    """A probes.json in which everything could be measured but the masked-LM loss."""
    similarity = gradient_similarity(contents.seen)
    pairs = [(a, b) for n, a in enumerate(contents.seen) for b in contents.seen[:n]]
    averages = {side: {"pretrained": 80.0, "tuned": 70.0} for side in ("seen", "unseen")}
    return {
        "gradient_similarity": similarity | {"layers": {"embeddings": {"cosine": 0.4}, "layer 0": {"cosine": 0.2}}},
        "proximity": {
            "spearman": -0.5,
            "p": 0.012,
            "pairs": [{"languages": pair, "distance": 0.1 * n, "cosine": 0.3} for n, pair in enumerate(pairs)],
        },
        "masked_lm": None,
        "retrieval": {"average": averages},
        "drift": {"total": 5.0, "layers": {"embeddings": 3.0, "layer 0": 4.0}},
        "notes": ["masked_lm: the model ships no head"],
    }


def division(clusters: int) -> dict[str, Any]:
    """A clusters.json of so many pseudo-tasks, alike in all but their numbers."""
    about = {
        "records": 25,
        "percent": 100 / clusters,
        "languages": {"en": 20, HOSTILE: 5},
        "labels": {HOSTILE: 60.0, "no": 40.0},
        "words": ["uh", "yeah", HOSTILE],
        "nearest": [f"نص {HOSTILE}", "unbreakable" * 30],
    }
    tasks = [{"task": f"cluster-{number}"} | about for number in range(1, clusters + 1)]
    return {"model": HOSTILE, "variance": 75.0, "hash": "0", "clusters": tasks}


def predictions(contents: Contents, place: int) -> list[dict[str, Any]]:
    """Example n of each language is right for the methods from place n on."""
    return [
        {
            "language": language,
            "record": {"text": f"نص {HOSTILE} {number}", "label": "yes"},
            "prediction": "yes" if place >= number else "no",
            "statistics": [float(place >= number), 1.0],
        }
        for language in contents.languages
        for number in range(contents.examples)
    ]


def overrides(grid: Mapping[str, Any]) -> dict[str, Any]:
    return parse_overrides(f"{key}={value}" for key, value in grid.items())


def sides(contents: Contents, mean: float) -> dict[str, dict[str, float] | None]:
    interval = {"mean": mean, "low": mean - 3.0, "high": mean + 3.0}
    return {"seen": interval, "unseen": interval if contents.unseen else None}


def less(contents: Contents, method: str, other: str) -> dict[str, dict[str, float] | None]:
    return sides(contents, contents.score(method, 0) - contents.score(other, 0))


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path: Path, lines: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")

"""Run and comparison folders with known contents, written as training, probes and comparisons write them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.recipe_files import RecipeFile, parse_overrides, to_yaml
from multitune.reports.evidence import Evidence, load
from multitune.results import metrics
from multitune.results.clusters import Cluster, Clusters
from multitune.results.comparison import ComparedRun, Comparison, Estimates, Interval, Point
from multitune.results.metrics import Event, Probe, Train, Validate, When, event_line
from multitune.results.predictions import FILE, Prediction, prediction_line
from multitune.results.probes import (
    BeforeAfter,
    Drift,
    Findings,
    LanguagePair,
    LayeredSimilarity,
    LayerSimilarity,
    ProbedRun,
    Proximity,
    Retrieval,
)
from multitune.results.run import RunResult, Shipped, Sides
from multitune.results.shown import Shown

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
    grid: Sequence[Point] = ({},)

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
                runs.append(ComparedRun(**vars(result), folder=name, grid=dict(values)))
    others = {m: [o for o in contents.methods if o != m] for m in contents.methods}
    Comparison(
        runs=runs,
        chosen={method: dict(contents.grid[0]) for method in contents.methods},
        metric="accuracy",
        baseline=contents.methods[0],
        interval="paired bootstrap over test examples",
        summary={m: sides(contents, contents.score(m, 0)) for m in contents.methods},
        pairwise={m: {o: less(contents, m, o) for o in others[m]} for m in contents.methods},
        differences={m: less(contents, m, contents.methods[0]) for m in contents.methods[1:]},
    ).write(folder)
    return folder


def run(folder: Path, contents: Contents, method: str, seed: int, grid: Point) -> RunResult:
    """Write a run's folder; returns its results."""
    folder.mkdir(parents=True)
    given = RecipeFile(run={"data": "panx", "budget": 96}, methods={}, source="test")
    recipe = given.resolve(method, overrides(grid) | {"seed": seed})
    (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    score = contents.score(method, seed)
    result = RunResult(
        method=method,
        seed=seed,
        budget=96,
        metric="accuracy",
        seen={language: {"accuracy": score} for language in contents.seen},
        unseen={language: {"accuracy": score - 20} for language in contents.unseen},
        average=Sides(seen=score, unseen=score - 20 if contents.unseen else None),
        drift=5.0,
        seconds=120.0,
        peak_memory_bytes=2**30,
        shipped=Shipped(select="last", gradients=96, dev=score),
        dropped={"de": 1},
        versions=VERSIONS,
        steps=96,
        step_seconds=96.0,
        precision="fp32",
        threads=2,
    )
    result.write(folder)
    write_events(folder, events(contents, score))
    write_predictions(folder, predictions(contents, contents.methods.index(method)))
    if contents.probed:
        probes(contents).write(folder)
    if contents.clusters:
        division(contents.clusters).write(folder)
    return result


def events(contents: Contents, score: float) -> list[Event]:
    """Losses, scores and probes, rising to ``score``."""
    found: list[Event] = []
    for gradients in (24, 48, 72, 96):
        when: When = {"gradients": gradients, "seconds": 1.25 * gradients}
        found.append(Train(**when, loss=96 / gradients, learning_rate=1e-4))
        found.append(Validate(**when, average=score * gradients / 96, drift=gradients / 20, dev={}))
        if contents.probed:
            found.append(
                Probe(
                    **when,
                    **gradient_similarity(contents.seen),
                    layers={"embeddings": 0.4, "layer 0": 0.2},
                    drift=5.0,
                    drift_by_layer={"layer 0": 5.0},
                    probe_seconds=1.0,
                    share=0.1,
                )
            )
    return found


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


def probes(contents: Contents) -> Findings:
    """A probes.json in which everything could be measured but the masked-LM loss."""
    pairs = [(a, b) for n, a in enumerate(contents.seen) for b in contents.seen[:n]]
    average = BeforeAfter(pretrained=80.0, tuned=70.0)
    layers = {"embeddings": LayerSimilarity(0.4, []), "layer 0": LayerSimilarity(0.2, [])}
    return Findings(
        run=ProbedRun(method="any", seed=0, budget=96),
        seen=list(contents.seen),
        unseen=list(contents.unseen),
        gradient_similarity=LayeredSimilarity(**gradient_similarity(contents.seen), layers=layers),
        proximity=Proximity(
            spearman=-0.5,
            p=0.012,
            permutations=9999,
            distance="by hand",
            pairs=[LanguagePair(list(pair), distance=0.1 * n, cosine=0.3) for n, pair in enumerate(pairs)],
        ),
        masked_lm=None,
        retrieval=Retrieval(pretrained={}, tuned={}, average=Sides(average, average), pairs="by hand", size={}),
        drift=Drift(total=5.0, layers={"embeddings": 3.0, "layer 0": 4.0}),
        notes=["masked_lm: the model ships no head"],
        seconds={},
        versions=VERSIONS,
    )


def division(clusters: int) -> Clusters:
    """A clusters.json of so many pseudo-tasks, alike in all but their numbers."""
    return Clusters(
        model=HOSTILE,
        variance=75.0,
        hash="0",
        clusters=[
            Cluster(
                task=f"cluster-{number}",
                records=25,
                percent=100 / clusters,
                languages={"en": 20, HOSTILE: 5},
                labels={HOSTILE: 60.0, "no": 40.0},
                words=["uh", "yeah", HOSTILE],
                nearest=[f"نص {HOSTILE}", "unbreakable" * 30],
            )
            for number in range(1, clusters + 1)
        ],
    )


def predictions(contents: Contents, place: int) -> list[Prediction]:
    """Example n of each language is right for the methods from place n on."""
    return [
        Prediction(
            language=language,
            record={"text": f"نص {HOSTILE} {number}", "label": "yes"},
            prediction="yes" if place >= number else "no",
            statistics=[float(place >= number), 1.0],
            shown=Shown(f"نص {HOSTILE} {number}", "yes", "yes" if place >= number else "no", place >= number),
        )
        for language in contents.languages
        for number in range(contents.examples)
    ]


def overrides(grid: Mapping[str, Any]) -> dict[str, Any]:
    return parse_overrides(f"{key}={value}" for key, value in grid.items())


def sides(contents: Contents, mean: float) -> Estimates:
    interval = Interval(mean=mean, low=mean - 3.0, high=mean + 3.0)
    return Sides(seen=interval, unseen=interval if contents.unseen else None)


def less(contents: Contents, method: str, other: str) -> Estimates:
    return sides(contents, contents.score(method, 0) - contents.score(other, 0))


def write_events(folder: Path, events: Sequence[Event]) -> None:
    (folder / metrics.FILE).write_text("".join(map(event_line, events)), encoding="utf-8")


def write_predictions(folder: Path, rows: Sequence[Prediction]) -> None:
    (folder / FILE).write_text("".join(map(prediction_line, rows)), encoding="utf-8")

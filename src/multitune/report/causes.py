"""Pictures of why methods differ, from the probes of their runs: alignment, proximity, drift by layer, retention."""

from collections.abc import Mapping
from typing import Any

from multitune.report.evidence import SIDES, Evidence, FinishedRun
from multitune.report.pictures import HeatMap, Plot, Point, Row, Rows, Series

PRETRAINED = "pretrained"
"""Stands where a method's name stands for the model before training."""
MOST_NAMES = 8
"""Points of a scatter plot with their languages written beside them."""


def first_runs(evidence: Evidence) -> list[FinishedRun]:
    """One run a method, of the first seed: what has no average over seeds is shown of it."""
    return [evidence.of(method)[0] for method in evidence.methods if evidence.of(method)]


def heat_maps(evidence: Evidence) -> list[HeatMap]:
    """Pairwise cosines of the languages' gradients at the end of each method's run, ordered by family."""
    found = []
    for run in first_runs(evidence):
        similarity = _similarity(run)
        if similarity:
            values = tuple(tuple(row) for row in similarity["cosines"])
            title = f"{evidence.label(run)}: mean {similarity['cosine']:.3f}"
            name = f"cosines-{run.method}".replace(":", "-")
            languages, families = tuple(similarity["languages"]), tuple(similarity["families"])
            found.append(HeatMap(name, title, languages, families, values))
    return found


def by_layer(evidence: Evidence) -> list[Plot]:
    """Mean cosine and L2 drift of each layer at the end of training."""
    cosines, drifts = {}, {}
    for run in first_runs(evidence):
        similarity, drift = _similarity(run), _drift(run)
        if similarity:
            cosines[run.method] = {
                k: v if isinstance(v, float) else v["cosine"] for k, v in similarity["layers"].items()
            }
        if drift:
            drifts[run.method] = drift
    plots = [
        _layers("cosine-layers", "Alignment by layer", "mean cosine", cosines),
        _layers("drift-layers", "Drift by layer", "L2 distance from pretrained", drifts),
    ]
    return [plot for plot in plots if plot.series]


def proximity(evidence: Evidence) -> list[Plot]:
    """Cosines of pairs of languages against their typological distance, a plot a method."""
    found = []
    for run in first_runs(evidence):
        measured = (run.probes or {}).get("proximity")
        if measured:
            name = f"proximity-{run.method}".replace(":", "-")
            title = (
                f"Relatedness and alignment, {run.method}: Spearman {measured['spearman']:.2f}, p = {measured['p']:.3g}"
            )
            points = tuple(_pair(pair) for pair in measured["pairs"])
            series = Series(run.method, run.method, points, joined=False)
            names = tuple((point.x, point.y, point.said.partition(":")[0]) for point in _extremes(points))
            found.append(Plot(name, title, "typological distance", "cosine", (series,), names=names))
    return found


def retention(evidence: Evidence) -> list[Rows]:
    """What the encoder could do before, and still can: masked-LM loss and retrieval, averaged over languages."""
    skills = (
        ("masked_lm", "Masked-language-model loss (lower is better)", "nats a masked token"),
        ("retrieval", "Cross-lingual retrieval (higher is better)", "accuracy, %"),
    )
    found = []
    for skill, title, label in skills:
        groups = tuple((side, _kept(evidence, skill, side)) for side in SIDES)
        if any(rows for _, rows in groups):
            groups = tuple((f"{side} languages", rows) for side, rows in groups if rows)
            found.append(Rows(skill.replace("_", "-"), title, label, groups))
    return found


def notes(evidence: Evidence) -> list[str]:
    """What the probes could not measure, and why."""
    return list(dict.fromkeys(note for run in evidence.shown for note in (run.probes or {}).get("notes", ())))


def _similarity(run: FinishedRun) -> Mapping[str, Any] | None:
    """Of the finished model where it was probed, else of the last probe in training."""
    found = (run.probes or {}).get("gradient_similarity")
    during = run.measured("probe")
    return found or (during[-1] if during and len(during[-1]["languages"]) > 1 else None)


def _drift(run: FinishedRun) -> Mapping[str, float] | None:
    found = (run.probes or {}).get("drift")
    during = run.measured("probe")
    layers: Mapping[str, float] | None = found["layers"] if found else during[-1]["drift_by_layer"] if during else None
    return layers


def _layers(name: str, title: str, label: str, values: Mapping[str, Mapping[str, float]]) -> Plot:
    names = tuple(dict.fromkeys(layer for layers in values.values() for layer in layers))
    series = tuple(
        Series(method, method, tuple(Point(names.index(k), v, f"{method}, {k}: {v:.3f}") for k, v in layers.items()))
        for method, layers in values.items()
    )
    return Plot(name, title, "layer, from the input", label, series, x_ticks=tuple(k.rpartition(".")[2] for k in names))


def _pair(pair: Mapping[str, Any]) -> Point:
    said = f"{'–'.join(pair['languages'])}: distance {pair['distance']:.2f}, cosine {pair['cosine']:.3f}"
    return Point(pair["distance"], pair["cosine"], said)


def _extremes(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """The highest and lowest points; all where there are few."""
    ordered = tuple(sorted(points, key=lambda point: point.y))
    return ordered if len(ordered) <= MOST_NAMES else ordered[: MOST_NAMES // 2] + ordered[-MOST_NAMES // 2 :]


def _kept(evidence: Evidence, skill: str, side: str) -> tuple[Row, ...]:
    rows: list[Row] = []
    for run in first_runs(evidence):
        measured = (run.probes or {}).get(skill)
        average = measured["average"][side] if measured else None
        if average and average["tuned"] is not None:  # there may be no such language with text to measure on
            rows += [] if rows else [Row(PRETRAINED, PRETRAINED, average["pretrained"])]
            rows.append(Row(run.method, run.method, average["tuned"]))
    return tuple(rows)

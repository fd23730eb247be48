"""Pictures of why methods differ, from the probes of their runs: alignment, proximity, drift, retention, answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from multitune.probes.proximity import typological
from multitune.reports.digits import fixed
from multitune.reports.evidence import Evidence, FinishedRun
from multitune.reports.method_names import full
from multitune.reports.pictures import HeatMap, Plot, Point, Row, Rows, Series
from multitune.results.metrics import Probe
from multitune.results.probes import Findings, LanguagePair, LayeredSimilarity, Proximity, Skill
from multitune.results.run import SIDES, Side

PRETRAINED = "pretrained"
"""Stands where a method's name stands for the model before training."""
MOST_NAMES = 8
"""Points of a scatter plot with their languages written beside them."""


def first_runs(evidence: Evidence) -> list[FinishedRun]:
    """One run a method, of the first seed: what has no average over seeds is shown of it."""
    return [evidence.of(method)[0] for method in evidence.methods if evidence.of(method)]


def heat_maps(evidence: Evidence) -> list[HeatMap]:
    """Pairwise cosines of the languages' gradients at the end of each method's run, ordered by family."""
    maps = []
    for run in first_runs(evidence):
        similarity = _similarity(run)
        if similarity:
            values = tuple(tuple(row) for row in similarity.cosines)
            title = f"{evidence.label(run)}: mean {fixed(similarity.cosine, 2)}"
            name = f"cosines-{run.method}".replace(":", "-")
            languages, families = tuple(similarity.languages), tuple(similarity.families)
            maps.append(HeatMap(name, title, languages, families, values))
    return maps


def by_layer(evidence: Evidence) -> list[Plot]:
    """Mean cosine and L2 drift of each layer at the end of training."""
    cosines, drifts = {}, {}
    for run in first_runs(evidence):
        similarity, drift = _similarity(run), _drift(run)
        if similarity:
            cosines[run.method] = similarity.cosine_by_layer
        if drift:
            drifts[run.method] = drift
    plots = [
        _layers("cosine-layers", "Alignment by layer", "mean cosine", cosines),
        _layers("drift-layers", "Drift by layer", "L2 distance from pretrained", drifts),
    ]
    return [plot for plot in plots if plot.series]


def proximity(evidence: Evidence) -> list[Plot]:
    """Cosines of pairs of languages against their distance in the family tree and in typology, a plot a method each."""
    plots = []
    for run in first_runs(evidence):
        measured = run.probes and run.probes.proximity
        kinds = {"genealogical": measured, "typological": typological(measured.pairs) if measured else None}
        plots += [_proximity(run, kind, found) for kind, found in kinds.items() if found]
    return plots


def _proximity(run: FinishedRun, kind: str, measured: Proximity) -> Plot:
    name = f"proximity-{kind}-{run.method}".replace(":", "-")
    correlation = f"Spearman {fixed(measured.spearman, 2)}, p = {measured.p:.4f}"
    title = f"{kind.capitalize()} distance, {full(run.method)}: {correlation}"
    points = tuple(_pair(pair) for pair in measured.pairs)
    series = Series(full(run.method), run.method, points, joined=False)
    names = tuple((point.x, point.y, point.said.partition(":")[0]) for point in _extremes(points))
    return Plot(name, title, f"{kind} distance", "cosine", (series,), names=names)


def retention(evidence: Evidence) -> list[Rows]:
    """What the encoder could do before, and still can: masked-LM loss and retrieval, averaged over languages."""
    masked = ("masked-lm", "Masked-language-model loss (lower is better)", "nats a masked token")
    retrieved = ("retrieval", "Cross-lingual retrieval (higher is better)", "accuracy, %")
    read = ("next-tokens", "Loss of texts with the model's own head (lower is better)", "nats a byte")
    return [
        *_skill(evidence, lambda findings: findings.next_tokens, *read),
        *_skill(evidence, lambda findings: findings.masked_lm, *masked),
        *_skill(evidence, lambda findings: findings.retrieval, *retrieved),
    ]


@dataclass(frozen=True)
class Asked:
    """A general prompt, and what the pretrained model (under ``PRETRAINED``) and each method's say: label -> answer."""

    prompt: str
    answers: Mapping[str, str]


def answers(evidence: Evidence) -> list[Asked]:
    """What models say to prompts that no run trains on, side by side; none where these are no causal LMs."""
    by_prompt: dict[str, dict[str, str]] = {}
    for run in first_runs(evidence):
        for own in run.probes.answers if run.probes else ():
            by_prompt.setdefault(own.prompt, {PRETRAINED: own.pretrained})[run.method] = own.tuned
    return [Asked(prompt, said) for prompt, said in by_prompt.items()]


def divergence(evidence: Evidence) -> list[Rows]:
    """KL(pretrained || tuned) of the next token's distributions on texts, averaged over languages."""
    groups = []
    for side in SIDES:
        known = {run.method: run.probes.next_tokens for run in first_runs(evidence) if run.probes}
        values = {method: read.average_divergence[side] for method, read in known.items() if read}
        rows = tuple(Row(full(method), method, value) for method, value in values.items() if value is not None)
        groups += [(f"{side} languages", rows)] if rows else []
    title = "Divergence of the next token from the pretrained model (lower is closer)"
    return [Rows("divergence", title, "KL, nats a token", tuple(groups))] if groups else []


def notes(evidence: Evidence) -> list[str]:
    """What the probes could not measure, and why."""
    return list(dict.fromkeys(note for run in evidence.shown if run.probes for note in run.probes.notes))


def _similarity(run: FinishedRun) -> LayeredSimilarity | Probe | None:
    """The similarity of the finished model where it was probed, else that of the last probe in training."""
    if run.probes and run.probes.gradient_similarity:
        return run.probes.gradient_similarity
    during = run.measured(Probe)
    return during[-1] if during else None


def _drift(run: FinishedRun) -> dict[str, float]:
    """L2 distance of each layer, where it is known and finite."""
    during = run.measured(Probe)
    layers = run.probes.drift.layers if run.probes else during[-1].drift_by_layer if during else {}
    return {layer: distance for layer, distance in layers.items() if distance is not None}


def _layers(name: str, title: str, label: str, values: Mapping[str, Mapping[str, float]]) -> Plot:
    names = tuple(dict.fromkeys(layer for layers in values.values() for layer in layers))
    series = tuple(
        Series(
            full(method),
            method,
            tuple(Point(names.index(k), v, f"{full(method)}, {k}: {v:.2f}") for k, v in layers.items()),
        )
        for method, layers in values.items()
    )
    return Plot(name, title, "layer, from the input", label, series, x_ticks=tuple(k.rpartition(".")[2] for k in names))


def _pair(pair: LanguagePair) -> Point:
    said = f"{'–'.join(pair.languages)}: distance {pair.distance:.2f}, cosine {fixed(pair.cosine, 2)}"
    return Point(pair.distance, pair.cosine, said)


def _extremes(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """The highest and lowest points; all where there are few."""
    ordered = tuple(sorted(points, key=lambda point: point.y))
    return ordered if len(ordered) <= MOST_NAMES else ordered[: MOST_NAMES // 2] + ordered[-MOST_NAMES // 2 :]


def _skill(evidence: Evidence, of: Callable[[Findings], Skill | None], name: str, title: str, label: str) -> list[Rows]:
    """One skill's picture, where any run has it."""
    skills = {run.method: skill for run in first_runs(evidence) if run.probes and (skill := of(run.probes))}
    groups = tuple((f"{side} languages", rows) for side in SIDES if (rows := _kept(skills, side)))
    return [Rows(name, title, label, groups)] if groups else []


def _kept(skills: Mapping[str, Skill], side: Side) -> tuple[Row, ...]:
    """The pretrained model's average, then each method's; none where no such language has text to measure on."""
    rows: list[Row] = []
    for method, skill in skills.items():
        average = skill.average[side]
        if average.tuned is not None and average.pretrained is not None:
            rows += [] if rows else [Row(PRETRAINED, PRETRAINED, average.pretrained)]
            rows.append(Row(full(method), method, average.tuned))
    return tuple(rows)

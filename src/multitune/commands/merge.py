"""Models between models, without training: the mean of several runs, moved back toward the pretrained weights."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from multitune import tasks
from multitune.commands.given_data import recipe_of
from multitune.data.corpus import Record
from multitune.errors import DivergedError, UserError
from multitune.evaluation import scoring
from multitune.evaluation.scoring import Encoded
from multitune.methods.averaging import interpolated, mean_weights
from multitune.models import encoder as encoders
from multitune.models import scratch
from multitune.models.device import chosen
from multitune.models.encoder import Encoder
from multitune.models.precision import resolve
from multitune.models.shipped import shipped
from multitune.recipe import Recipe
from multitune.recipe_files import to_yaml
from multitune.results.digests import tested_differently
from multitune.results.falling import rank
from multitune.results.json_files import finite
from multitune.results.merged import Merged, MergedPoint, MergedRun
from multitune.results.run import FILE, RunResult, Scores, Sides, average, finite_scores
from multitune.storage.atomic import replaced, write_text
from multitune.storage.disk import check_readable, disk_explained
from multitune.tasks import HeadMap, Task, name_of
from multitune.training import run_folder
from multitune.training.arithmetic import computing_as
from multitune.training.data_changes import changes_since
from multitune.training.loading import load_encoder, load_plan, load_with_labels
from multitune.versions import versions

WEIGHTS = (1.0, 0.9, 0.8)
"""Points toward the pretrained weights, where nobody names others."""


@dataclass(frozen=True)
class _Source:
    """A finished run to merge."""

    folder: Path
    recipe: Recipe
    result: RunResult
    models: Mapping[str, Task]


def merge(
    runs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    toward_pretrained: bool = False,
    weights: Sequence[float] | None = None,
    figures: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Merged:
    """Score points between runs and their pretrained model, and write the model of the one that is best on dev.

    The mean of several runs is a model soup (arXiv 2203.05482); a point between it and the pretrained weights is
    WiSE-FT's (arXiv 2109.01903): there the weights that pretraining left are interpolated, and new heads are kept.
    Data, limits and precision are those of the first run's recipe; its test records are scored at every point.

    Args:
        runs: finished runs of one model on the same languages.
        out: a new folder for ``model/``, ``recipe.yaml``, ``merge.json`` and the picture ``front``; by default the
            first run's with ``-merged`` behind its name.
        toward_pretrained: also go back toward the weights that pretraining left.
        weights: shares of the way from these to the runs' mean, 0 to 1; ``WEIGHTS`` by default.
        figures: draw seen scores against unseen ones, where there are both.
        say: is told what is being done.

    Raises:
        UserError: runs that are not finished, do not fit each other or have a model for each language; bad weights; or
            figures need matplotlib, which is missing.
        DivergedError: a point diverges.
    """
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    _check_each_once(folders)
    shares = _shares(len(folders), toward_pretrained, weights)
    target = default_folder(folders[0]) if out is None else Path(out)
    with disk_explained(target):
        run_folder.check_new(target)
    if figures:
        from multitune.reports import merging  # says at once where matplotlib is missing
    sources = [_read(folder) for folder in folders]
    _check_fit(sources, toward_pretrained)
    with computing_as(sources[0].recipe):
        between = _Merging(sources, toward_pretrained, say)
        result = between.scored(shares)
        with disk_explained(target):
            target.mkdir(parents=True, exist_ok=True)
            between.save(target, result.chosen)
            if figures:
                merging.write(result, target)
            result.write(target)
    return result


def default_folder(run: Path) -> Path:
    """Where a merge goes when nobody says: beside its first run."""
    return run.with_name(f"{run.resolve().name}-merged")


def _check_each_once(folders: Sequence[Path]) -> None:
    """Raise UserError where a run is named twice: it would count twice in the mean."""
    for number, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise UserError(f"merge: {folder} is named twice; name each run once")


def _shares(runs: int, toward_pretrained: bool, weights: Sequence[float] | None) -> list[float]:
    """The points that are asked for, each once.

    Raises:
        UserError: nothing to merge, or a weight that is none.
    """
    if not runs:
        raise UserError("merge: names no run; write multitune merge RUN...")
    if not toward_pretrained:
        if weights is not None:
            raise UserError("--weights: are shares against the pretrained weights; add --toward-pretrained")
        if runs == 1:
            raise UserError("merge: a single run has no mean; name several runs, or add --toward-pretrained")
        return [1.0]
    for weight in weights if weights is not None else WEIGHTS:
        if not 0.0 <= weight <= 1.0:
            raise UserError(f"--weights: {weight:g} is not a share; each is 0 (pretrained) to 1 (the runs)")
    if weights is not None and not weights:
        raise UserError("--weights: is empty; write shares such as 1,0.9,0.8")
    return list(dict.fromkeys(float(weight) for weight in (WEIGHTS if weights is None else weights)))


def _read(run: Path) -> _Source:
    """A finished run with one model for several languages, or with one for each head of its own.

    Raises:
        UserError: it is none.
    """
    check_readable(run)
    if not (run / "recipe.yaml").exists() or not (run / FILE).exists():
        raise UserError(f"{run}: holds no finished run; merge needs its recipe.yaml, results.json and model/")
    if not (run / "model").exists():
        raise UserError(f"{run}: has no model/; merge needs runs with save_model: true")
    recipe = recipe_of(run).resolve()
    if load_plan(recipe).one_model_per_task:
        raise UserError(f"{run}: {recipe.method} trains one model per language; merge needs one model for several")
    return _Source(run, _here(recipe), RunResult.read(run), shipped(run / "model"))


def _here(recipe: Recipe) -> Recipe:
    """The recipe with its device, or where this machine lacks that, ``auto``: the run may be another machine's."""
    try:
        chosen(recipe.device)
    except UserError:
        return recipe.model_copy(update={"device": "auto"})
    return recipe


def _check_fit(sources: Sequence[_Source], toward_pretrained: bool) -> None:
    """Find whether runs have a mean: one pretrained model, kind of task and labels, and the same languages.

    Raises:
        UserError: naming what differs.
    """
    first, *others = sources
    for source in sources:
        if source.recipe.ship_vocabulary == "trimmed":
            raise UserError(f"merge: {source.folder} has ship_vocabulary: trimmed; runs to merge ship the full one")
    if first.recipe.model.startswith(scratch.PREFIX):
        if toward_pretrained:
            raise UserError(f"--toward-pretrained: {first.folder} began at {first.recipe.model}, without pretraining")
        if len({source.recipe.seed for source in sources}) > 1:
            raise UserError(f"merge: runs of {first.recipe.model} with other seeds began at other weights")
    for other in others:
        for what, own, theirs in zip(_FITTING, _fitting(first), _fitting(other), strict=True):
            if own != theirs:
                raise UserError(
                    f"{other.folder}: {what} {theirs}; {first.folder} has {own}: runs to merge have the same {what}"
                )


_FITTING = ("model", "number of layers", "kind of task", "labels", "training languages")


def _fitting(source: _Source) -> tuple[str, ...]:
    """What runs to merge have in common, in words, as ``_FITTING`` names them."""
    heads = source.models.items()
    return (
        source.recipe.model,
        "all" if source.recipe.layers is None else str(source.recipe.layers),
        ", ".join(" ".join(filter(None, (name_of(task), name))) for name, task in heads),
        "; ".join(", ".join(task.labels) for _, task in heads),
        ", ".join(sorted(source.result.seen)),
    )


class _Merging:
    """Runs that fit each other, and the data of the first of them.

    Args:
        sources: the runs.
        toward_pretrained: whether the pretrained weights are wanted.
        say: is told what is being done.
    """

    def __init__(self, sources: Sequence[_Source], toward_pretrained: bool, say: Callable[[str], None]) -> None:
        self._sources, self._toward_pretrained, self._say = sources, toward_pretrained, say
        self._first = sources[0]
        self._corpus = load_with_labels(self._first.recipe, self._first.models)
        self._heads = tasks.of(self._corpus)
        self._ways: dict[Path, float] = {}
        """By run, how far its weights are from the pretrained ones that are there now."""

    def scored(self, weights: Sequence[float]) -> Merged:
        """All points, and which of them is best on dev."""
        by_weight: dict[float, list[_Part]] = {weight: [] for weight in weights}
        for name in self._first.models:
            mixture = self._mixture(name)
            dev, test = (self._encoded(mixture.encoder, name, split) for split in (self._corpus.dev, self._corpus.test))
            for weight, parts in by_weight.items():
                self._say(f"scoring weight {weight:g}" + (f" of {name}" if name else ""))
                parts.append(self._part(mixture, weight, dev, test))
            precision = resolve(self._first.recipe.precision, mixture.encoder.device)
        points = [self._point(weight, parts) for weight, parts in by_weight.items()]
        return Merged(
            runs=[_as_merged(source) for source in self._sources],
            pretrained=self._first.recipe.model if self._toward_pretrained else None,
            metric=self._heads.metric,
            points=points,
            chosen=max(points, key=lambda point: rank(self._heads.metric, point.dev)).weight,
            precision=precision,
            versions=versions() | self._heads.versions(),
            notes=list(self._notes(len(points))),
        )

    def save(self, out: Path, weight: float) -> None:
        """Write the model of a point, and the recipe by which ``multitune evaluate`` scores it."""
        with replaced(out / "model") as beside:
            for name in self._first.models:
                mixture = self._mixture(name)
                mixture.move_to(weight)
                mixture.encoder.save(beside / name)
        write_text(out / "recipe.yaml", to_yaml(self._first.recipe))

    def _mixture(self, name: str) -> "_Mixture":
        """The runs' models in one folder of ``model/``, and the pretrained one."""
        heads = HeadMap.of_all(self._first.models[name])
        encoder = self._loaded(self._first, name)
        pretrained: dict[str, Tensor] = {}
        if self._toward_pretrained:
            start = load_encoder(self._first.recipe, heads, self._corpus)
            pretrained = {k: v.detach() for k, v in start.pretrained_parameters()}
            _check_shapes(encoder, pretrained, self._first.recipe.model, self._first.folder)
        return _Mixture(encoder, mean_weights(self._models(encoder, name, pretrained)), pretrained)

    def _models(self, encoder: Encoder, name: str, pretrained: Mapping[str, Tensor]) -> Iterator[list[Tensor]]:
        """The weights of each run, of which the first has ``encoder``; their way from ``pretrained`` is noted."""
        for source in self._sources:
            model = encoder if source is self._first else self._loaded(source, name)
            own = {k: v.detach() for k, v in model.parameters()}
            _check_shapes(encoder, own, source.folder, self._first.folder, all_of_them=True)
            if pretrained and not name:
                self._ways[source.folder] = _distance(own, pretrained)
            yield [own[k] for k, _ in encoder.parameters()]

    def _loaded(self, source: _Source, name: str) -> Encoder:
        """A run's model in a folder of ``model/``."""
        folder, heads, first = source.folder / "model" / name, HeadMap.of_all(source.models[name]), self._first.recipe
        encoder = encoders.load(
            str(folder), heads, layers=None, dropout=None, seed=source.recipe.seed, device=first.device
        )
        if (weight := encoder.non_finite_weight()) is not None:
            raise DivergedError(f"{source.folder}: the model has diverged: its weights {weight} are not finite")
        return encoder

    def _encoded(self, encoder: Encoder, name: str, split: Mapping[str, Sequence[Record]]) -> Encoded:
        """A split's languages that the model in a folder scores."""
        own = {language: rows for language, rows in split.items() if name in ("", language)}
        return Encoded.of(own, self._heads, encoder, self._first.recipe.max_length)

    def _part(self, mixture: "_Mixture", weight: float, dev: Encoded, test: Encoded) -> "_Part":
        """Scores of the languages of one model."""
        mixture.move_to(weight)
        precision = self._first.recipe.precision
        on_dev, on_test = (
            finite_scores(scoring.evaluate(mixture.encoder, self._heads, split, precision).scores)
            if split.records
            else {}
            for split in (dev, test)
        )
        return _Part(on_dev, on_test, mixture.drift())

    def _point(self, weight: float, parts: Sequence["_Part"]) -> MergedPoint:
        metric, test = self._heads.metric, {k: v for part in parts for k, v in part.test.items()}
        seen = {language: test[language] for language in self._corpus.test if language in self._corpus.train}
        unseen = {language: test[language] for language in self._corpus.test if language not in self._corpus.train}
        return MergedPoint(
            weight=weight,
            dev=average({k: v for part in parts for k, v in part.dev.items()}, metric),
            seen=seen,
            unseen=unseen,
            average=Sides(seen=average(seen, metric), unseen=average(unseen, metric)),
            drift=parts[0].drift,
        )

    def _notes(self, points: int) -> Iterator[str]:
        if self._corpus.test_is_dev and points > 1:
            yield "this data has no test split of its own: the weight is chosen on the very records that are reported"
        for source in self._sources:
            if changes := changes_since(source.folder, self._corpus, {}, ["dev", "test"]):
                yield f"the data changed: {changes} are not those that {source.folder} was made with"
        for source in self._sources:
            way, drift = self._ways.get(source.folder), source.result.drift
            if way is not None and drift is not None and not math.isclose(way, drift, rel_tol=0.01, abs_tol=0.001):
                yield (
                    f"{source.recipe.model} is not what {source.folder} began at: its weights are {way:.4g} away from "
                    f"it, and went {drift:.4g}; points toward it are not points toward where training began"
                )
        tested = {str(source.folder): source.result.digests for source in self._sources}
        for language, one, other in tested_differently(tested):
            yield f"{one} and {other} were tested on different records of {language}"


@dataclass(frozen=True)
class _Part:
    """What one of the models of a point scores."""

    dev: Scores
    test: Scores
    drift: float | None


@dataclass(frozen=True)
class _Mixture:
    """A model that can be moved between the runs' mean and the pretrained weights.

    Attributes:
        encoder: what is moved.
        mean: of the runs, in the order of its weights.
        pretrained: by name, the weights that pretraining left; empty where nobody wants them.
    """

    encoder: Encoder
    mean: list[Tensor]
    pretrained: Mapping[str, Tensor]

    def move_to(self, weight: float) -> None:
        """Put the weights at a share of the way from the pretrained ones to the mean; new weights are the mean's."""
        ends = dict(zip((name for name, _ in self.encoder.parameters()), self.mean, strict=True))
        between = interpolated(list(self.pretrained.values()), [ends[name] for name in self.pretrained], weight)
        self.encoder.load_weights(ends | dict(zip(self.pretrained, between, strict=True)))

    def drift(self) -> float | None:
        """L2 distance of the weights from the pretrained ones."""
        return finite(_distance(dict(self.encoder.parameters()), self.pretrained)) if self.pretrained else None


@torch.no_grad()
def _distance(weights: Mapping[str, Tensor], pretrained: Mapping[str, Tensor]) -> float:
    """L2 distance of weights from the pretrained ones, heads excluded."""
    return math.hypot(*(float((weights[name] - weight).norm()) for name, weight in pretrained.items()))


def _check_shapes(
    encoder: Encoder, given: Mapping[str, Tensor], whose: str | Path, first: Path, *, all_of_them: bool = False
) -> None:
    """Find whether weights are, or with ``all_of_them`` are all, those of the encoder of the first run.

    Raises:
        UserError: naming one that is not.
    """
    own = {name: list(weight.shape) for name, weight in encoder.parameters()}
    for name in given.keys() | (own.keys() if all_of_them else ()):
        shape = list(given[name].shape) if name in given else None
        if shape != own.get(name):
            raise UserError(
                f"{whose}: its weights {name} have the shape {shape}, those of {first} {own.get(name)}; only models "
                f"of one architecture and vocabulary have points between them"
            )


def _as_merged(source: _Source) -> MergedRun:
    result = source.result
    return MergedRun(str(source.folder), result.method, result.seed, result.shipped.dev, result.average)

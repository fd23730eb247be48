"""The one training loop, and what stands around it: validating, checkpoints, shipping, results."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from multitune import checkpoint
from multitune.checkpoint import RunState
from multitune.data import Corpus
from multitune.display import Display, Silent, Terminal
from multitune.errors import UserError
from multitune.evaluate import Evaluation, evaluate, write_predictions
from multitune.interrupt import Interrupted, StopSignal
from multitune.methods import Plan
from multitune.recipe import AnyRecipe, Recipe, RecipeFile, as_file, to_yaml
from multitune.results import FILE, RunResult, mean, peak_memory, reset_peak_memory, versions
from multitune.run import Run, learning_rate, load_corpus, load_plan, prepare, probabilities

LOG_LINES, LONGEST_WAIT = 100, 50
"""Training lines in the metrics.jsonl of a short run; gradient computations between two lines of a long one."""


def train(
    recipe: AnyRecipe,
    out: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = False,
    corpus: Corpus | None = None,
) -> RunResult:
    """Train, evaluate and ship one run.

    Args:
        recipe: what to do: a recipe, or the path of a file that holds one.
        out: the run folder; ``runs/<recipe>-<method>-seed<seed>`` by default. Nothing is written before recipe, data
            and model have been found good.
        overrides: recipe keys to set, e.g. ``{"budget": 400}``.
        resume: continue the unfinished run in ``out`` from its newest checkpoint, or begin where there is none.
        progress: show a progress bar on stderr.
        corpus: the recipe's data, where the caller has it already.

    Raises:
        UserError: anything wrong with the recipe, the data, the model or the folder.
        Interrupted: Ctrl-C or SIGTERM; the newest checkpoint and ``model/`` hold what was learnt.
    """
    file = as_file(recipe)
    one = file.resolve(overrides=overrides)
    folder = default_folder(file, one) if out is None else Path(out)
    plan = load_plan(one)
    _check_folder(folder, one, resume)
    corpus = load_corpus(one) if corpus is None else corpus
    run = _train_each if plan.one_model_per_task else _train_one
    return run(one, plan, corpus, folder, resume=resume, progress=progress)


def default_folder(file: RecipeFile, recipe: Recipe) -> Path:
    """Where a run goes when nobody says."""
    return Path("runs") / f"{file.name}-{recipe.method}-seed{recipe.seed}"


def _train_one(recipe: Recipe, plan: Plan, corpus: Corpus, out: Path, *, resume: bool, progress: bool) -> RunResult:
    reset_peak_memory()
    run = prepare(recipe, corpus, plan)
    _begin_folder(out, recipe)
    title = f"{recipe.method} seed {recipe.seed}"
    with Terminal(title, recipe.budget) if progress else Silent() as display:
        trainer = Trainer(run, out, display)
        if resume:
            trainer.resume()
        trainer.fit()
        return trainer.ship(corpus)


class Trainer:
    """One run being trained: its counters, its log, its checkpoints."""

    def __init__(self, run: Run, out: Path, display: Display) -> None:
        self._run, self._out, self._display = run, out, display
        self._gradients, self._seconds = 0, 0.0
        self._best: dict[str, float] = {}
        self._best_weights: dict[str, Tensor] = {}
        self._losses: list[float] = []
        self._dev = 0.0

    def fit(self) -> None:
        """Spend the budget."""
        self._keep_log()
        self._began = time.monotonic() - self._seconds
        with StopSignal() as stop:
            while not self._spent:
                before = self._gradients
                self._step()
                if self._due(max(1, min(LONGEST_WAIT, self._run.recipe.budget // LOG_LINES)), before):
                    self._report()
                if self._due(self._run.recipe.validation_interval, before):
                    self._validate()
                    self._save_state()
                if stop.requested and not self._spent:
                    self._end_early()

    def ship(self, corpus: Corpus) -> RunResult:
        """Evaluate the weights that the recipe selects on the test split, and write all that a run leaves."""
        run, out = self._run, self._out
        shipped = {"select": run.recipe.select, "gradients": self._gradients, "dev": self._dev}
        (out / "checkpoints").mkdir(exist_ok=True)
        save_file(self._weights(), out / "checkpoints" / "last.safetensors")
        save_file(self._best_weights, out / "checkpoints" / "best.safetensors")
        if run.recipe.select == "best":
            run.encoder.load_weights(self._best_weights)
            shipped |= {"gradients": int(self._best["gradients"]), "dev": self._best["average"]}
        self._display.say(f"evaluating {len(corpus.test)} languages")
        evaluation = evaluate(run.encoder, run.task, run.test, run.precision)
        if run.recipe.save_model:
            run.encoder.save(out / "model")
        write_predictions(out / "predictions.jsonl", run.test, evaluation)
        result = self._result(corpus, evaluation, shipped)
        result.write(out)
        checkpoint.clear(out / "checkpoints")
        return result

    def resume(self) -> None:
        """Continue from the newest checkpoint; begin anew where the run had none yet."""
        state = checkpoint.load_newest(self._out / "checkpoints")
        if state is None:
            return
        self._gradients, self._seconds = state.gradients, state.seconds
        self._losses, self._dev = state.losses, state.dev
        self._best, self._best_weights = state.best, state.best_weights
        self._run.encoder.load_weights(state.weights)
        self._run.update.load_state_dict(state.update)
        for language, batches in state.batches.items():
            self._run.batches[language].load_state_dict(batches)
        self._display.say(f"resuming at {state.gradients} gradients")

    def _step(self) -> None:
        run, recipe = self._run, self._run.recipe
        run.update.advance(learning_rate(recipe, self._gradients), self._gradients / recipe.budget)
        drawn = run.update.draw()[: (recipe.budget - self._gradients) // run.update.cost]
        losses = (run.loss(mixture, self._gradients + n) for n, mixture in enumerate(drawn))
        self._losses += run.update.step(drawn, losses)
        self._gradients += run.update.cost * len(drawn)
        if self._spent:
            run.update.finish()
        self._seconds = time.monotonic() - self._began

    @property
    def _spent(self) -> bool:
        """Whether the budget is spent, but for a rest too small for a step."""
        return self._run.recipe.budget - self._gradients < self._run.update.smallest_step

    def _due(self, interval: int, before: int) -> bool:
        """Whether the last step passed a multiple of ``interval``, or ended the budget."""
        return self._gradients // interval > before // interval or self._spent

    def _report(self) -> None:
        loss = sum(self._losses) / len(self._losses)
        rate = learning_rate(self._run.recipe, self._gradients)
        self._log("train", loss=loss, learning_rate=rate)
        self._display.step(self._gradients, loss, self._gradients / self._seconds)
        self._losses = []

    def _validate(self) -> None:
        """Score the weights that would ship now on dev."""
        run = self._run
        with run.update.shipped_weights():
            evaluation = evaluate(run.encoder, run.task, run.dev, run.precision)
            drift = run.encoder.drift()
            self._dev = evaluation.average(run.task.metric)
            if not self._best or self._dev > self._best["average"]:
                self._best = {"average": self._dev, "gradients": self._gradients}
                self._best_weights = self._weights()
        self._log("validate", average=self._dev, drift=drift, dev=evaluation.scores)
        self._display.validated(self._gradients, self._dev, run.task.metric, drift)

    def _end_early(self) -> None:
        self._save_state()
        with self._run.update.shipped_weights():
            self._run.encoder.save(self._out / "model")
        raise Interrupted(
            f"stopped after {self._gradients} of {self._run.recipe.budget} gradients; {self._out / 'model'} holds what "
            f"was learnt, --resume goes on from there"
        )

    def _save_state(self) -> None:
        state = RunState(
            gradients=self._gradients,
            seconds=self._seconds,
            losses=self._losses,
            dev=self._dev,
            weights=dict(self._run.encoder.parameters()),
            update=self._run.update.state_dict(),
            batches={language: batches.state_dict() for language, batches in self._run.batches.items()},
            best=self._best,
            best_weights=self._best_weights,
        )
        checkpoint.save(state, self._out / "checkpoints")

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._run.encoder.parameters()}

    def _keep_log(self) -> None:
        """Cut off the lines of metrics.jsonl that a resumed run is going to write again."""
        path = self._out / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["gradients"] <= self._gradients]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def _log(self, event: str, **measured: Any) -> None:
        line = {"gradients": self._gradients, "event": event, "seconds": self._seconds} | measured
        with (self._out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _result(self, corpus: Corpus, evaluation: Evaluation, shipped: Mapping[str, Any]) -> RunResult:
        recipe, metric = self._run.recipe, self._run.task.metric
        seen = {language: scores for language, scores in evaluation.scores.items() if language in corpus.train}
        unseen = {language: scores for language, scores in evaluation.scores.items() if language not in corpus.train}
        return RunResult(
            method=recipe.method,
            seed=recipe.seed,
            budget=recipe.budget,
            metric=metric,
            seen=seen,
            unseen=unseen,
            average={"seen": mean(seen, metric), "unseen": mean(unseen, metric)},
            drift=self._run.encoder.drift(),
            seconds=time.monotonic() - self._began,
            peak_memory_bytes=peak_memory(),
            shipped=dict(shipped),
            dropped=dict(corpus.dropped),
            versions=versions() | self._run.task.versions(),
        )


def _check_folder(out: Path, recipe: Recipe, resume: bool) -> None:
    """A run never writes over another: the folder is new, empty, or (resuming) holds this very recipe, unfinished."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise UserError(f"--out: {out} is a file; name a folder")
    if not (out / "recipe.yaml").exists():
        raise UserError(f"--out: {out} is not empty and holds no run; name a new folder")
    if (out / FILE).exists():
        raise UserError(f"--out: {out} already holds a finished run; name another folder, or remove it")
    if not resume:
        raise UserError(f"--out: {out} already holds an unfinished run; add --resume to go on, or name another folder")
    if (out / "recipe.yaml").read_text(encoding="utf-8") != to_yaml(recipe):
        raise UserError(f"--resume: {out / 'recipe.yaml'} is another recipe; resume with the one it was begun with")


def _begin_folder(out: Path, recipe: Recipe) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")


def _train_each(recipe: Recipe, plan: Plan, corpus: Corpus, out: Path, *, resume: bool, progress: bool) -> RunResult:
    """A model for each language, on its share of the budget; ``model/`` has a folder for each.

    No language is unseen by a single-language model, so there are no unseen scores.
    """
    _begin_folder(out, recipe)
    (out / "model").mkdir(exist_ok=True)
    parts = []
    for language, budget in _shares(recipe, corpus).items():
        folder = out / "languages" / language
        if not (folder / FILE).exists():
            one = recipe.model_copy(update={"languages": (language,), "unseen": (), "budget": budget})
            _train_one(one, plan, _only(corpus, language), folder, resume=resume, progress=progress)
        model = folder / "model" / language if corpus.heads else folder / "model"
        if model.exists():
            model.rename(out / "model" / language)
        parts.append(RunResult.read(folder))
    result = _joined(recipe, parts)
    _join_predictions(out)
    result.write(out)
    return result


def _shares(recipe: Recipe, corpus: Corpus) -> dict[str, int]:
    """The budget by language, as often as other methods draw it; the roundings add up to the budget."""
    shares = probabilities(recipe, [len(rows) for rows in corpus.train.values()])
    ends = (shares.cumsum(0) * recipe.budget).round().int().tolist()
    return {k: end - begin for k, begin, end in zip(corpus.train, [0, *ends], ends, strict=False)}


def _only(corpus: Corpus, language: str) -> Corpus:
    train, dev, test = ({language: split[language]} for split in (corpus.train, corpus.dev, corpus.test))
    heads = {language: corpus.heads[language]} if corpus.heads else {}
    return replace(corpus, train=train, dev=dev, test=test, heads=heads)


def _joined(recipe: Recipe, parts: Sequence[RunResult]) -> RunResult:
    """The results of single-language models as one: scores side by side, costs summed, mean drift."""
    seen = {language: scores for part in parts for language, scores in part.seen.items()}
    return replace(
        parts[0],
        budget=recipe.budget,
        seen=seen,
        average={"seen": mean(seen, parts[0].metric), "unseen": None},
        drift=sum(part.drift for part in parts) / len(parts),
        seconds=sum(part.seconds for part in parts),
        peak_memory_bytes=max(part.peak_memory_bytes for part in parts),
        shipped={"select": recipe.select} | {language: part.shipped for part in parts for language in part.seen},
    )


def _join_predictions(out: Path) -> None:
    with (out / "predictions.jsonl").open("w", encoding="utf-8") as joined:
        for file in sorted((out / "languages").glob("*/predictions.jsonl")):
            joined.write(file.read_text(encoding="utf-8"))

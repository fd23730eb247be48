"""What a run leaves: results.json, and the model with its card."""

from pathlib import Path

import torch

from multitune.data.corpus import Corpus
from multitune.data.records.labels import unknown_labels
from multitune.evaluation.scoring import Evaluation, by_class
from multitune.recipe import Recipe
from multitune.results.json_files import finite
from multitune.results.run import RunResult, Shipped, Sides, average, finite_scores
from multitune.storage.atomic import replaced
from multitune.tasks import TASKS
from multitune.training import model_card
from multitune.training.checkpoint import Progress
from multitune.training.memory import peak_memory
from multitune.training.model_card import Training
from multitune.training.run import Run
from multitune.versions import versions


def result_of(run: Run, now: Progress, corpus: Corpus, evaluation: Evaluation, seconds: float) -> RunResult:
    """The results of a run whose model holds the weights that ship.

    Args:
        run: what was trained.
        now: how far it came.
        corpus: its data.
        evaluation: of the weights that ship, on the test split.
        seconds: what the run took, breaks left out.
    """
    recipe, metric, scores = run.recipe, run.heads.metric, finite_scores(evaluation.scores)
    seen = {language: own for language, own in scores.items() if language in corpus.train}
    unseen = {language: own for language, own in scores.items() if language not in corpus.train}
    stopped = now.gradients if recipe.budget - now.gradients >= run.update.smallest_step else None
    return RunResult(
        method=recipe.method,
        seed=recipe.seed,
        budget=recipe.budget,
        metric=metric,
        seen=seen,
        unseen=unseen,
        average=Sides(seen=average(seen, metric), unseen=average(unseen, metric)),
        drift=finite(run.encoder.drift()),
        seconds=seconds,
        step_seconds=now.step_seconds,
        peak_memory_bytes=most_memory(run, now),
        precision=run.precision,
        threads=torch.get_num_threads(),
        device=str(run.encoder.device),
        shipped=_shipped(recipe.select, now),
        dropped=dict(corpus.dropped),
        versions=versions() | run.heads.versions(),
        skipped=dict(corpus.skipped),
        unknown_labels=unknown_labels(corpus, corpus.test, TASKS),
        steps=now.steps,
        skipped_steps=now.skipped_steps,
        trained=dict(now.trained),
        by_class=by_class(corpus, run.heads, evaluation.statistics),
        notes=[*run.update.notes, *([] if stopped is None else [_early(recipe, stopped)])],
        stopped=stopped,
        digests=run.digests,
    )


def most_memory(run: Run, now: Progress) -> int:
    """The most bytes that the run has had in use, in this session or when a checkpoint of an earlier one was taken."""
    return max(now.peak_memory_bytes, peak_memory(run.encoder.device))


def _early(recipe: Recipe, gradients: int) -> str:
    """What is to be said of a run that has not spent its budget."""
    return (
        f"stopped after {gradients} of {recipe.budget} gradients: dev had not risen for {recipe.patience} validations"
    )


def write_model(run: Run, out: Path, gradients: int, result: RunResult | None, split: str) -> None:
    """Write ``model/``, whose weights ship, with its card, and ``adapter/`` where adapters were trained.

    Args:
        out: the run's folder.
        gradients: gradient computations that the weights have seen.
        result: the scores, where there are some yet.
        split: of the scores.
    """
    about = Training(
        recipe=run.recipe,
        heads=run.heads,
        languages=list(run.dev.records),
        examples={language: len(records) for language, records in run.test.records.items()},
        gradients=gradients,
        result=result,
        split=split,
    )
    with replaced(out / "model") as beside:
        run.encoder.save(beside)
        model_card.write(beside, about)
    if run.encoder.adapted:
        with replaced(out / "adapter") as beside:
            run.encoder.save_adapters(beside, about.base or run.recipe.model)


def _shipped(select: str, now: Progress) -> Shipped:
    """Which weights a recipe's ``select`` takes."""
    if select == "best":
        return Shipped(select, gradients=int(now.best["gradients"]), dev=finite(now.best["average"]))
    return Shipped(select, gradients=now.gradients, dev=finite(now.dev))

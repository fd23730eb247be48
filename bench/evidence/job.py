"""One training of the study, with the points on its way back that are wanted, and what is stored of it."""

import logging
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import multitune as mt
import probed
import store as stores
from multitune.data.corpus import Corpus
from multitune.evaluation import scoring
from multitune.evaluation.scoring import Encoded, read_statistics
from multitune.models import encoder as encoders
from multitune.models.shipped import shipped
from multitune.recipe import Recipe
from multitune.results.json_files import plain
from multitune.tasks import HeadMap
from multitune.training.arithmetic import computing_as
from multitune.training.loading import load_corpus, load_with_labels
from plan import Plan, Row

Statistics = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        row: the trained contender's.
        points: rows of points on its way back.
        data: the folder of the data; None where they come from a package.
    """

    row: Row
    points: tuple[Row, ...]
    data: Path | None


def begin_process() -> None:
    """Let this process of the pool say errors alone, as runs take turns with their lines, and be stopped in runs alone.

    One that a signal killed between runs would break the pool, and leave the others to wait for ever.
    """
    logging.getLogger("multitune").setLevel(logging.ERROR)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def perform(plan: Plan, job: Job, store: Path, work: Path) -> tuple[str, float]:
    """Train, store the rows, remove the run folder; a run that was stopped is resumed.

    A run that diverges is stored as failed; one that its machine ended is not stored, and resumed at the next call.

    Returns:
        A line that says what came of it, and the seconds that it took.

    Raises:
        multitune.Interrupted, multitune.UserError, multitune.RunError: as ``mt.train`` does.
    """
    begun, recipe = time.monotonic(), plan.recipe(job.row, job.data)
    folder = work / "runs" / plan.stem(job.row)
    corpus = load_corpus(recipe)
    kind = plan.settings[job.row.setting].cluster
    stores.write_clusters(
        store, job.row.setting, {language: stores.clusters(kind, rows) for language, rows in corpus.test.items()}
    )
    common = {"recipe": plan.recipe(job.row, None).model_dump(mode="json"), "task": corpus.task}
    try:
        result = mt.train(recipe, folder, resume=True, corpus=corpus)
    except mt.DivergedError as error:
        for row in (job.row, *job.points):
            stores.write(store, plan, row, common | {"data": "", "results": {"failed": str(error)}}, {})
        shutil.rmtree(folder)
        return f"failed: {error}", time.monotonic() - begun
    results = plain(result)
    common |= {"data": stores.digest(results)}
    for point in job.points:
        moved, statistics = _moved_back(plan, point, recipe, folder)
        stores.write(store, plan, point, common | {"results": stores.kept(results | moved)}, statistics)
    about = {} if recipe.probe_every is None else probed.findings(recipe, folder, work)
    stores.write(store, plan, job.row, common | {"results": stores.kept(results)} | about, read_statistics(folder))
    shutil.rmtree(folder)
    average = result.average
    return f"seen {average.seen or 0:.2f}, unseen {average.unseen or 0:.2f}", time.monotonic() - begun


def again(plan: Plan, row: Row, data: Path | None, work: Path) -> tuple[Statistics, dict[str, Any]]:
    """The statistics and kept results of a trained row, run once more and not stored."""
    folder = work / "again" / plan.stem(row)
    shutil.rmtree(folder, ignore_errors=True)
    result = mt.train(plan.recipe(row, data), folder)
    statistics = read_statistics(folder)
    shutil.rmtree(folder)
    return statistics, stores.kept(plain(result))


def _moved_back(plan: Plan, point: Row, recipe: Recipe, run: Path) -> tuple[dict[str, Any], Statistics]:
    """What a point on a run's way back scores, as ``multitune merge`` says, and its statistics."""
    out = run.with_name(f"{run.name}-{point.contender}")
    shutil.rmtree(out, ignore_errors=True)
    weight = plan.contenders[point.contender].weight
    best = mt.merge(run, out, toward_pretrained=True, weights=[weight], figures=False).best
    with computing_as(recipe):
        statistics, scores = _scored(recipe, out / "model")
    shutil.rmtree(out)
    assert scores == best.seen | best.unseen, "the model that merge wrote does not score what merge says"
    shipped_point = {"select": "last", "gradients": recipe.budget, "dev": best.dev, "languages": {}}
    values = {"seen": best.seen, "unseen": best.unseen, "average": asdict(best.average), "drift": best.drift}
    return values | {"shipped": shipped_point}, statistics


def _scored(recipe: Recipe, model: Path) -> tuple[Statistics, Mapping[str, Mapping[str, float]]]:
    """The statistics and scores of a model on the recipe's test records."""
    models = shipped(model)
    corpus: Corpus = load_with_labels(recipe, models)
    heads = HeadMap.of_all(models[""])
    encoder = encoders.load(str(model), heads, layers=None, dropout=None, seed=recipe.seed, device=recipe.device)
    encoded = Encoded.of(corpus.test, heads, encoder, recipe.max_length)
    found = scoring.evaluate(encoder, heads, encoded, recipe.precision)
    return found.statistics, found.scores

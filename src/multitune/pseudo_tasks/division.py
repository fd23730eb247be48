"""Pseudo-tasks: the training records of one language divided into clusters, so that methods for many tasks apply.

The Sequential Reptile paper (arXiv 2110.02600, section 4.3) does so for zero-shot transfer: inputs are encoded by the
pretrained model, reduced by PCA and clustered by a Gaussian mixture. docs/pseudo-tasks.md lists what is done otherwise.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from multitune.data.corpus import Corpus, Record
from multitune.data.kind import readable
from multitune.data.records.digest import digest
from multitune.errors import UserError
from multitune.models import scratch
from multitune.models.encoder import Encoder
from multitune.pseudo_tasks.characteristic_words import characteristic_words
from multitune.pseudo_tasks.clustering import Clustering, Input, clustered
from multitune.recipe import Recipe
from multitune.results.clusters import FILE, Cluster, Clusters
from multitune.screen.stages import stage
from multitune.tasks import TASKS

WORDS, LABELS, NEAREST, LONGEST_TEXT = 12, 5, 3, 400
"""Of a cluster's description: words, labels, inputs, and characters after which one is cut."""
WORDS_OF = 5000
"""Records of a cluster, at most, whose words are counted."""


@dataclass(frozen=True)
class Division:
    """The records of a corpus by task.

    Attributes:
        train: task -> training records of all languages, in the data's order; the largest task comes first.
        dev: task -> dev records that the mixture assigns to it; tasks without any are left out.
        description: what ``clusters.json`` holds.
    """

    train: dict[str, list[Record]]
    dev: dict[str, list[Record]]
    description: Clusters

    @property
    def assignment(self) -> tuple[str, dict[str, str]]:
        """Hashes of which training record and which dev records are in which task."""
        return self.description.hash, {task: digest(records) for task, records in self.dev.items()}


def check(recipe: Recipe, corpus: Corpus) -> None:
    """Refuse what cannot be divided.

    Raises:
        UserError: a kind of task without texts to encode, a model without pretraining, or too few records.
    """
    settings = recipe.pseudo_tasks
    if settings is None:
        return
    if corpus.heads or not TASKS[corpus.task].can_divide:
        kind = "tasks with heads of their own" if corpus.heads else f"the kind {corpus.task}"
        allowed = ", ".join(name for name, task in TASKS.items() if task.can_divide)
        raise UserError(f"pseudo_tasks: data: {recipe.data} is of {kind}; allowed: {allowed}")
    if recipe.model.startswith(scratch.PREFIX):
        raise UserError(f"pseudo_tasks: clusters need a pretrained model, and {recipe.model} is not pretrained")
    different = len({repr(each) for records in corpus.train.values() for each in _inputs(corpus.task, records)})
    needed = max(settings.clusters * recipe.batch_size, settings.pca)
    if different < needed:
        raise UserError(
            f"pseudo_tasks: the training data have {different} different records, and {settings.clusters} clusters "
            f"of at least {recipe.batch_size} (batch_size) in {settings.pca} dimensions (pca) need {needed}"
        )


def divide(recipe: Recipe, corpus: Corpus, encoder: Encoder) -> Division | None:
    """The corpus's training and dev records by task; None where the recipe trains on languages.

    Args:
        encoder: the recipe's, with the weights that pretraining left.

    Raises:
        UserError: as ``check`` does, a model with a decoder or fewer dimensions than ``pca``, or a cluster that is too
            small.
    """
    settings = recipe.pseudo_tasks
    if settings is None:
        return None
    check(recipe, corpus)
    config = encoder.model.config
    if config.is_encoder_decoder:
        raise UserError(f"pseudo_tasks: {recipe.model} has a decoder, and clusters are made from an encoder's states")
    if settings.pca > config.hidden_size:
        raise UserError(
            f"pseudo_tasks.pca: {settings.pca} is more than the {config.hidden_size} dimensions of {recipe.model}"
        )
    train, dev = ([record for rows in split.values() for record in rows] for split in (corpus.train, corpus.dev))
    of_train, of_dev = (_inputs(corpus.task, records) for records in (train, dev))
    with stage("dividing the records into tasks"):
        clustering = clustered(of_train, of_dev, encoder, settings, recipe.max_length)
    tasks = [f"cluster-{number + 1}" for number in range(settings.clusters)]
    sizes = Counter(clustering.train)
    for number, task in enumerate(tasks):
        if sizes[number] < recipe.batch_size:
            raise UserError(
                f"pseudo_tasks: {task} has {sizes[number]} records, fewer than batch_size {recipe.batch_size}; try "
                f"fewer clusters, or another pca"
            )
    return Division(
        train=_by_task(tasks, train, clustering.train),
        dev={task: records for task, records in _by_task(tasks, dev, clustering.dev).items() if records},
        description=Clusters(
            model=recipe.model,
            variance=clustering.variance,
            hash=hashlib.blake2b(json.dumps(clustering.train).encode(), digest_size=16).hexdigest(),
            clusters=_described(tasks, corpus, clustering),
        ),
    )


def write(folder: Path, division: Division) -> None:
    """Write ``clusters.json`` into a run folder.

    Raises:
        UserError: the run that is resumed there was begun with other clusters.
    """
    path = folder / FILE
    if path.exists() and Clusters.read(folder).hash != division.description.hash:
        raise UserError(
            f"--resume: the clusters in {path} differ from those that this machine finds; resume where the run began, "
            f"or begin anew in another folder"
        )
    division.description.write(folder)


def _by_task(tasks: Sequence[str], records: Sequence[Record], clusters: Sequence[int]) -> dict[str, list[Record]]:
    divided: dict[str, list[Record]] = {task: [] for task in tasks}
    for record, cluster in zip(records, clusters, strict=True):
        divided[tasks[cluster]].append(record)
    return divided


def _inputs(task: str, records: Sequence[Record]) -> list[Input]:
    return [TASKS[task].texts(record) for record in records]


def _described(tasks: Sequence[str], corpus: Corpus, clustering: Clustering) -> list[Cluster]:
    """What ``clusters.json`` says of each cluster."""
    languages, train = zip(*((k, record) for k, records in corpus.train.items() for record in records), strict=True)
    inputs = _inputs(corpus.task, train)
    members: list[list[int]] = [[] for _ in tasks]
    for row, cluster in enumerate(clustering.train):
        members[cluster].append(row)
    texts = [[readable(inputs[row]) for row in _spread(rows)] for rows in members]
    about = zip(tasks, members, characteristic_words(texts, WORDS), clustering.nearest, strict=True)
    return [
        Cluster(
            task=task,
            records=len(rows),
            percent=100 * len(rows) / len(train),
            languages=dict(Counter(languages[row] for row in rows)),
            labels=_shares(label for row in rows for label in TASKS[corpus.task].labels_of(train[row])),
            words=words,
            nearest=[_cut(readable(each)) for each in _unlike(inputs[row] for row in nearest)][:NEAREST],
        )
        for task, rows, words, nearest in about
    ]


def _shares(labels: Iterable[str]) -> dict[str, float]:
    """The most frequent labels, each with its percentage of all."""
    counts = Counter(labels)
    return {label: 100 * count / counts.total() for label, count in counts.most_common(LABELS)}


def _spread(rows: Sequence[int]) -> Sequence[int]:
    """At most ``WORDS_OF`` of the rows, evenly spread."""
    return rows[:: -(-len(rows) // WORDS_OF)]


def _unlike(inputs: Iterable[Input]) -> Iterator[Input]:
    """The inputs that have no text in common with one before: a premise has several hypotheses, a context questions."""
    met: set[str] = set()
    for each in inputs:
        texts = set(map(repr, each))
        if met.isdisjoint(texts):
            yield each
        met |= texts


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"

"""Clusters of texts, cached: a Gaussian mixture on principal components of a pretrained encoder's pooled states."""

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitune.data.kind import Text
from multitune.evaluation.scoring import token_batches
from multitune.models.encoder import Encoder
from multitune.recipe import PseudoTasks
from multitune.storage import cache
from multitune.tasks.task import Example, padded, rows_of, together
from multitune.versions import versions

log = logging.getLogger(__name__)

SEED, ITERATIONS = 0, 1000
"""Of the mixture's first guess (never the run's seed, as with the split of the data), and of its fit, at most."""
NEAREST = 20
"""Inputs nearest to a cluster's centre that are kept."""
CODE = ("pseudo_tasks/clustering.py", "evaluation/scoring.py", "models/encoder.py", "tasks/task.py")
"""What decides the clusters, beside the installed packages."""
FILE = "clusters.json"

Matrix = NDArray[np.float64]
Input = tuple[Text, ...]
"""What the tokenizer reads of a record: a text or its words, and perhaps a second text; as many for each record."""


class Clustering(NamedTuple):
    """A fitted mixture's clusters, numbered from 0 by size.

    Attributes:
        train: the cluster of each input of ``train``.
        dev: the cluster of each input of ``dev``.
        nearest: for each cluster the inputs of ``train`` nearest to its mean, the nearest first.
        variance: percentage of the inputs' variance that the principal components keep.
    """

    train: list[int]
    dev: list[int]
    nearest: list[list[int]]
    variance: float


def clustered(
    train: Sequence[Input], dev: Sequence[Input], encoder: Encoder, settings: PseudoTasks, max_length: int
) -> Clustering:
    """The clusters of ``train``, from the cache where they were found before; ``dev`` is assigned to them.

    Args:
        encoder: with the weights that pretraining left.
        max_length: tokens after which an input is cut.
    """

    def make() -> Clustering:
        count = len(train) + len(dev)
        log.warning("pseudo_tasks: encoding %d records, once for all runs with this data and model", count)
        return fitted(encoded(train, encoder, max_length), encoded(dev, encoder, max_length), settings)

    packages = versions() | {name: metadata.version(name) for name in ("scikit-learn", "scipy")}
    key = cache.key(train, dev, settings.model_dump(), max_length, _model(encoder), packages, cache.code(*CODE))
    return cache.kept("pseudo-tasks", key, make=make, write=_write, read=_read)


def fitted(train: Matrix, dev: Matrix, settings: PseudoTasks) -> Clustering:
    """The clusters of a Gaussian mixture on principal components; train and dev: [inputs, hidden]."""
    from sklearn.decomposition import PCA  # a second, which every other run would wait for
    from sklearn.mixture import GaussianMixture

    components = PCA(settings.pca, svd_solver="covariance_eigh")  # exact, and small where records are many
    points = components.fit_transform(train)
    mixture = GaussianMixture(settings.clusters, max_iter=ITERATIONS, random_state=SEED).fit(points)
    given = mixture.predict(points)
    sizes = np.bincount(given, minlength=settings.clusters)
    order = np.argsort(-sizes, kind="stable")
    number = np.argsort(order)
    distances = np.linalg.norm(points - mixture.means_[given], axis=1)
    by_distance = np.argsort(distances, kind="stable")
    return Clustering(
        train=number[given].tolist(),
        dev=number[mixture.predict(components.transform(dev))].tolist(),
        nearest=[by_distance[given[by_distance] == cluster][:NEAREST].tolist() for cluster in order],
        variance=100 * float(components.explained_variance_ratio_.sum()),
    )


def encoded(inputs: Sequence[Input], encoder: Encoder, max_length: int) -> Matrix:
    """The encoder's mean-pooled last hidden states, [inputs, hidden]; in fp32, whatever the recipe's precision."""
    examples = _examples(inputs, encoder, max_length)
    vectors = np.empty((len(examples), encoder.model.config.hidden_size))
    with encoder.evaluating():
        for rows in token_batches(np.array([len(example["input_ids"]) for example in examples])):
            batch = padded([examples[row] for row in rows], encoder.pad_id)
            vectors[rows] = encoder.mean_states(encoder.on_device(batch)).cpu().numpy()
    return vectors


def _examples(inputs: Sequence[Input], encoder: Encoder, max_length: int) -> list[Example]:
    """Token ids of each input, cut to ``max_length``: of two texts the end of the longer one is left out."""
    words = isinstance(inputs[0][0], list)
    examples: list[Example] = []
    for some in together(inputs):
        texts = [list(column) for column in zip(*some, strict=True)]
        encoding = encoder.tokenizer(*texts, is_split_into_words=words, truncation=True, max_length=max_length)
        examples += rows_of(encoding)
    return examples


def _model(encoder: Encoder) -> str:
    """A hash of the content of model and tokenizer."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (encoder.model.config.to_json_string(), encoder.tokenizer_hash):
        digest.update(part.encode())
    for name, weight in encoder.pretrained_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().numpy().data)
    return digest.hexdigest()


def _write(clustering: Clustering, folder: Path) -> None:
    (folder / FILE).write_text(json.dumps(clustering._asdict()), encoding="utf-8")


def _read(folder: Path) -> Clustering:
    return Clustering(**json.loads((folder / FILE).read_text(encoding="utf-8")))

"""Clusters of texts, cached: a Gaussian mixture on principal components of a pretrained encoder's pooled states."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from multitune.data.kind import Text
from multitune.evaluation.scoring import token_batches
from multitune.models.encoder import Encoder
from multitune.recipe import PseudoTasks
from multitune.storage.atomic import published
from multitune.tasks.task import Example, padded, rows_of, together

log = logging.getLogger(__name__)

SEED, ITERATIONS = 0, 1000
"""Of the mixture's first guess (never the run's seed, as with the split of the data), and of its fit, at most."""
NEAREST = 20
"""Inputs nearest to a cluster's centre that are kept."""
_REVISION = 1  # of all that is done here: raise it with every change, so that nothing older is taken from the cache

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

    A cache that cannot be written is only a warning; then they are found again in each run.

    Args:
        encoder: with the weights that pretraining left.
        max_length: tokens after which an input is cut.
    """
    key = _key([train, dev, settings.model_dump(), max_length], encoder)
    path = user_cache_path("multitune") / "pseudo-tasks" / key
    cached = _read(path)
    if cached is not None:
        return cached
    log.warning("pseudo_tasks: encoding %d records, once for all runs with this data and model", len(train) + len(dev))
    found = fitted(encoded(train, encoder, max_length), encoded(dev, encoder, max_length), settings)
    try:
        _write(path, found)
    except OSError as error:
        log.warning("pseudo_tasks: %s cannot be written (%s), so that every run encodes anew", path, error.strerror)
    return found


def fitted(train: Matrix, dev: Matrix, settings: PseudoTasks) -> Clustering:
    """The clusters of a Gaussian mixture on principal components; train and dev: [inputs, hidden]."""
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


def _key(given: Sequence[Any], encoder: Encoder) -> str:
    """A hash of all that decides the clusters: inputs and settings, and the content of tokenizer and model."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (json.dumps([_REVISION, *given]), encoder.model.config.to_json_string(), encoder.spelling):
        digest.update(part.encode())
    for name, weight in encoder.pretrained_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> Clustering | None:
    """A clustering from the cache; None where there is none, or a damaged one: its first line is a hash of the rest."""
    if not path.exists():
        return None
    head, _, content = path.read_bytes().partition(b"\n")
    if head.decode(errors="replace") != content_hash(content):
        log.warning("pseudo_tasks: %s is damaged; the clusters are found anew", path)
        return None
    return Clustering(**json.loads(content))


def _write(path: Path, found: Clustering) -> None:
    content = json.dumps(found._asdict()).encode()
    with published(path) as beside:
        beside.write_bytes(content_hash(content).encode() + b"\n" + content)


def content_hash(content: bytes) -> str:
    """BLAKE2b of 16 bytes, in hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()

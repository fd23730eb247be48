"""Gradient similarity: pairwise cosines of task gradients on fixed held-out batches (Sequential Reptile, Figure 4).

The gradients are those of the weights that all tasks share, without dropout, from the engine that combines gradients in
training: each task's gradient is a row of one buffer, and the Gram matrix of a layer's columns has its cosines.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multitune.errors import UserError
from multitune.evaluation.scoring import Encoded
from multitune.methods.base import GramMethod, NonFiniteError
from multitune.methods.combiner import Combiner
from multitune.methods.losses import Loss
from multitune.models.encoder import Encoder
from multitune.models.precision import autocast
from multitune.probes import genealogy
from multitune.seeds import seeded
from multitune.tasks import HeadMap, Task
from multitune.tasks.task import Example, Inputs


class Diverged(UserError):
    """The weights give some language a loss or gradient that is not finite."""


@dataclass(frozen=True)
class Similarity:
    """Inner products of task gradients.

    Attributes:
        tasks: their names, in the order of rows and columns.
        grams: layer -> [tasks, tasks], float64; layers without any gradient are left out.
        losses: [tasks].
    """

    tasks: tuple[str, ...]
    grams: dict[str, Tensor]
    losses: Tensor

    @property
    def gram(self) -> Tensor:
        """The Gram matrix of the gradients of all weights, [tasks, tasks]; zeros where no weight has a gradient."""
        none = torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.float64)
        return torch.stack([none, *self.grams.values()]).sum(0)

    @property
    def norms(self) -> Tensor:
        """L2 norms of the gradients of all weights, [tasks]."""
        return self.gram.diagonal().sqrt()


def cosines(gram: Tensor) -> Tensor:
    """G_ij / sqrt(G_ii G_jj), [tasks, tasks]: 1 on the diagonal, 0 beside it where a gradient is zero."""
    norms = gram.diagonal().sqrt()
    scale = norms[:, None] * norms
    matrix = torch.where(scale > 0, gram / scale, 0.0).clamp(-1, 1)
    return matrix.fill_diagonal_(1)


def mean_cosine(gram: Tensor) -> float:
    """The mean over pairs of different tasks; gram: [tasks > 1, tasks]."""
    pairs = torch.ones_like(gram, dtype=torch.bool).triu(diagonal=1)
    return float(cosines(gram)[pairs].mean())


def similarity(
    tasks: Sequence[str],
    parameters: Iterable[tuple[str, nn.Parameter]],
    losses: Iterable[Loss],
    heads: Iterable[nn.Parameter] = (),
) -> Similarity:
    """Backpropagate each task's loss; `.grad` is None afterwards.

    Needs the memory of a gradient a task and one more.

    Args:
        tasks: names.
        parameters: the weights, by name; their layers come in this order.
        losses: one a task, each with a graph of its own; with a generator one graph lives at a time.
        heads: those of the parameters that one task alone uses; they are left out.

    Raises:
        ValueError: losses that are not scalars with a graph, as many as tasks, and finite.
    """
    named, recorder = list(parameters), _Recorder()
    combiner = Combiner(named, recorder, groups="all_layer", heads=heads)
    values = combiner.backward(losses, tasks=range(len(tasks)))
    for _, parameter in named:
        parameter.grad = None
    grams = dict(zip(combiner.layout.groups, recorder.grams, strict=True))
    return Similarity(tuple(tasks), {layer: gram for layer, gram in grams.items() if gram.any()}, values)


class _Recorder(GramMethod):
    """Keeps the Gram matrices, and combines nothing."""

    grams: Tensor

    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        self.grams = grams.clone()
        return torch.zeros(grams.shape[:-1], dtype=torch.float64)


def held_out(split: Encoded, batch_size: int) -> dict[str, list[Example]]:
    """A batch for each language of a split: a fixed random choice, whatever the run's seed."""
    chosen = {}
    for language, examples in split.examples.items():
        order = torch.randperm(len(examples), generator=seeded(0, "probe", language))
        chosen[language] = [examples[row] for row in order[:batch_size].sort().values.tolist()]
    return chosen


def measure(encoder: Encoder, heads: HeadMap, batches: Mapping[str, Sequence[Example]], precision: str) -> Similarity:
    """The similarity of languages on a batch each, ordered by family, with the weights that the model holds.

    Raises:
        Diverged: naming the languages whose loss or gradient is not finite.
    """
    languages = genealogy.by_family(batches)
    flat = [example for batch in batches.values() for example in batch]
    tokens = {int(token) for example in flat for token in example["input_ids"]} if heads.can_trim else None
    own = set(encoder.own_heads)
    with encoder.probed(tokens) as trimmed:
        losses = (_loss(encoder, heads.task(k), k, batches[k], trimmed, precision) for k in languages)
        own_weights = [weight for name, weight in encoder.parameters() if name in own]
        try:
            return similarity(languages, encoder.parameters(), losses, own_weights)
        except NonFiniteError as error:
            named = ", ".join(languages[task] for task in error.tasks)
            raise Diverged(f"the loss or gradient of {named} is not finite: lower the learning rate") from error


def _loss(
    encoder: Encoder,
    task: Task,
    language: str,
    examples: Sequence[Example],
    trimmed: Callable[[Inputs], Inputs],
    precision: str,
) -> Tensor:
    model = encoder.head(language)
    inputs, targets = task.collate(examples, encoder.pad_id)
    targets = targets.to(encoder.device)
    precision = "fp32" if precision == "fp16" else precision  # without a loss scale gradients would vanish
    with autocast(encoder.device, precision), task.fewer_logits(model, targets):
        return task.loss(model(**encoder.on_device(trimmed(inputs))), targets)

"""A run before its first step: data read, encoder loaded, method set up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from multitune import pseudo_tasks, tasks
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.evaluation.scoring import Encoded
from multitune.methods.ranks import Ranks
from multitune.models import compiling
from multitune.models.checkpointing import checkpoint_layers
from multitune.models.device import chosen, sent
from multitune.models.encoder import Encoder
from multitune.models.loss_scale import LossScale
from multitune.models.masks import padding_is
from multitune.models.packing import use_packing
from multitune.models.parts import Parts
from multitune.models.precision import autocast, resolve
from multitune.plans import Plan, find
from multitune.plans.update import Update
from multitune.pseudo_tasks import Division
from multitune.recipe import Recipe
from multitune.results.digests import Digests
from multitune.seeds import global_draws, seeded
from multitune.tasks import CausalLM, HeadMap, MaskedLanguageModelling, Task
from multitune.tasks.task import Example, Inputs
from multitune.training import launch
from multitune.training.batching import Batch, Batches
from multitune.training.data_changes import digests_of, own_replay
from multitune.training.loading import load_encoder, replayed
from multitune.training.method import streams, update_of

Taken = dict[str, dict[str, Any]]
"""A mini-batch that was taken from its stream, by language: epoch, position and rows."""


@dataclass(frozen=True)
class Run:
    """A run with everything loaded, before or between its steps."""

    recipe: Recipe
    heads: HeadMap
    encoder: Encoder
    update: Update
    languages: tuple[str, ...]
    """The training languages, or the pseudo-tasks."""
    examples: Mapping[str, Sequence[Example]]
    batches: Mapping[str, Batches]
    """A stream of mini-batches a task, by its name, or one that mixes all; updates know streams by their place."""
    dev: Encoded
    dev_by_task: Encoded
    """``dev``, or with pseudo-tasks its records by these."""
    test: Encoded
    precision: str
    loss_scale: LossScale | None
    """What gradients are multiplied by on their way through an fp16 pass; None in other precisions."""
    division: Division | None
    """What the pseudo-tasks are; None where the tasks are languages."""
    split: Ranks
    """Those that have a part of each mini-batch."""
    digests: Digests
    """Hashes of the records that the run sees; with a model for each language, of all languages' records."""
    compiled: compiling.CompiledLayers | None
    """The encoder's layers; None where they are not compiled."""

    @property
    def title(self) -> str:
        """What a person who watches knows it by; where each language has a model, the run is one language's."""
        one = f" on {self.languages[0]}" if find(self.recipe.method).one_model_per_task else ""
        return f"{self.recipe.method}{one} seed {self.recipe.seed}"

    def loss(self, number: int) -> Tensor:
        """The method's loss of the next mini-batch of the stream with this number."""
        return torch.stack(list(self.next_loss(number, [])())).sum()

    def next_loss(self, number: int, taken: list["Taken"]) -> Callable[[], Iterator[Tensor]]:
        """Take the next mini-batch of the stream with this number; the function computes the method's loss of it.

        It computes scalars whose sum is the loss, one at a time: one a micro-batch, where the recipe has these.
        ``taken`` gets one more entry: which mini-batch it is.

        What is random in it depends on the seed and on which of the stream's mini-batches it is, so that every method
        meets a mini-batch with the same dropout, whichever rank computes it.
        """
        stream = self._streams[number]
        batch = stream.next()
        taken.append(stream.newest())
        return partial(self._losses, batch, stream.place)

    def _losses(self, batch: Batch, place: tuple[str | int, ...]) -> Iterator[Tensor]:
        """The terms of the method's loss of a mini-batch; ``place`` says which of its stream's it is."""
        rows: dict[int, list[Example]] = {}
        for language, drawn in batch.items():
            rows.setdefault(self._head_of[language], []).extend(self.examples[language][row] for row in drawn)
        examples, draw = sum(map(len, rows.values())), seeded(self.recipe.seed, "variation", *place)
        parts = [part for head, own in rows.items() for part in self._parts(head, own, len(own) / examples, draw)]
        together = [parts] if self.recipe.micro_batch_size is None else [[part] for part in parts]
        rank = (self.split.rank,) if self.split.rank else ()
        for number, some in enumerate(together):
            which = (*place, *rank, number) if number else (*place, *rank)
            dropout = seeded(self.recipe.seed, "dropout", *which).initial_seed()
            with global_draws(dropout, self.encoder.device), self._autocast, self._computing():
                loss = torch.stack([self._loss(part, draw) for part in some]).sum()
            yield loss if self.loss_scale is None else self.loss_scale.scaled(loss)

    def _parts(self, head: int, examples: Sequence[Example], share: float, draw: torch.Generator) -> Iterator["_Part"]:
        """Examples that share a head as micro-batches, each with its share of what they weigh in all.

        A loss is a mean over labels: a micro-batch's share goes with how many of them it has, so that the sum of the
        gradients is that of the whole. One without labels is left out.
        """
        task = self.heads.tasks[head]
        drawn, of_rank = self._of_rank(task, [task.augmented(example, draw) for example in examples])
        size = self.recipe.micro_batch_size or len(drawn)
        collated = [self._collated(task, drawn[at : at + size]) for at in range(0, len(drawn), size)]
        labels = [task.labels_in_loss(targets) for _, targets in collated]
        whole = sum(labels) or len(labels)  # of a batch without labels the loss is NaN, as ever
        for (inputs, targets), own in zip(collated, labels, strict=True):
            if own or not any(labels):
                yield _Part(head, inputs, targets, share * of_rank * (max(1, own) / whole))

    def _collated(self, task: Task, examples: Sequence[Example]) -> tuple[Inputs, Tensor]:
        if self.recipe.packing:
            return task.packed(examples)
        with nullcontext() if self.compiled is None or task.reads_padding else self.compiled.filling_up():
            return task.collate(examples, self.encoder.pad_id)

    def _of_rank(self, task: Task, examples: Sequence[Example]) -> tuple[Sequence[Example], float]:
        """This rank's part of examples, where ranks split them, and its share of the labels.

        A rank without any label computes all examples with a share of 0: the graph is then that of the other ranks.
        """
        if self.split.size == 1:
            return examples, 1.0
        own = examples[self.split.rank :: self.split.size]
        labels = task.labels_in_loss(task.targets(own)) if own else 0
        return own if labels else examples, labels / max(1, task.labels_in_loss(task.targets(examples)))

    # What each step looks up, made once.

    @cached_property
    def _streams(self) -> tuple[Batches, ...]:
        return tuple(self.batches.values())

    @cached_property
    def _head_of(self) -> dict[str, int]:
        """Training language -> the number of its head."""
        return {language: self.heads.number(language) for language in self.languages}

    @cached_property
    def _models(self) -> tuple[PreTrainedModel, ...]:
        """The model with each head."""
        return tuple(self.encoder.numbered(number) for number in range(len(self.heads.tasks)))

    @cached_property
    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self.encoder.device, self.precision)

    def _computing(self) -> AbstractContextManager[None]:
        return nullcontext() if self.compiled is None else self.compiled.computing()

    def _loss(self, part: "_Part", draw: torch.Generator) -> Tensor:
        """The method's loss of a part of a mini-batch, times its share; ``draw`` is the mini-batch's generator."""
        task, model = self.heads.tasks[part.head], self._models[part.head]
        inputs = self.encoder.on_device(self.encoder.training_inputs(part.inputs))
        targets = sent(part.targets, self.encoder.device)
        padded = None if model.config.is_encoder_decoder else part.padded  # there, decoders have masks of their own
        padded = padded if self.compiled is None else True  # so that layers always have a mask
        with task.fewer_logits(model, part.targets), padding_is(padded):
            return self.update.loss(model, inputs, lambda output: task.loss(output, targets), draw) * part.share


@dataclass(frozen=True)
class _Part:
    """Examples of a mini-batch that are computed at once, collated.

    Attributes:
        head: the number of the head that they share.
        share: what their mean loss is multiplied by in the mini-batch's.
    """

    head: int
    inputs: Inputs
    targets: Tensor
    share: float

    @property
    def padded(self) -> bool | None:
        """Whether examples are filled up to the length of the longest; None of what has no mask, or is packed."""
        mask = self.inputs.get("attention_mask")
        return None if mask is None or mask.ndim > 2 else not bool(mask.all())


def prepare(recipe: Recipe, corpus: Corpus, plan: Plan, ranks: Ranks | None = None) -> Run:
    """Load the encoder, tokenise the corpus, set up the method; ``ranks``, if there are several, share its steps.

    Raises:
        UserError: the model cannot be had, the data cannot be divided into pseudo-tasks, or the budget is too small.
    """
    heads, replay = tasks.of(corpus), replayed(recipe, corpus)
    _check_batches(recipe, heads)
    _check_packing(recipe, heads, plan)
    if replay:
        causal = isinstance(heads.tasks[0], CausalLM)
        heads = heads.with_replay(CausalLM(()) if causal else MaskedLanguageModelling(()), corpus.test)
    _check_vocabulary(recipe, heads, corpus.task)
    alone, every = Ranks(), ranks or Ranks()
    sharded = recipe.shard and every.size > 1
    encoder = _encoder(recipe.model_copy(update={"device": "cpu"}) if sharded else recipe, heads, corpus)
    precision = resolve(recipe.precision, encoder.device)
    division, parts = pseudo_tasks.divide(recipe, corpus, encoder), encoder.parts()
    _choose_what_trains(recipe, encoder, parts, precision)
    records = corpus.train if division is None else division.train
    trained = records if heads.replay is None else {**records, heads.replay: replay}
    train = Encoded.of(trained, heads, encoder, recipe.max_length)
    for language, rows in train.examples.items():
        heads.task(language).stop_after(encoder.head(language), rows)
    dev = Encoded.of(corpus.dev, heads, encoder, recipe.max_length)
    if recipe.trim_vocabulary and not recipe.shard and heads.can_trim and encoder.embedding_trains:
        encoder.trim(train.tokens)
    encoder.remember()
    test = Encoded.of(corpus.test, heads, encoder, recipe.max_length)
    if recipe.ship_vocabulary == "trimmed":
        encoder.ship_only({*train.tokens, *dev.tokens, *test.tokens})
    dealt, split = (alone, every) if recipe.split_batch or recipe.shard else (every, alone)
    if sharded:
        launch.check_alike(every, {"weights": [weight for _, weight in encoder.parameters()]})
        encoder.shard(chosen(recipe.device))
    examples = train.examples
    sizes = [len(rows) for rows in records.values()]
    lengths = {language: heads.task(language).sizes(rows) for language, rows in examples.items()}
    update = update_of(recipe, plan, encoder, parts, sizes, dealt, split)
    weights = [*(weight for _, weight in encoder.parameters()), *update.own_weights]
    return Run(
        recipe=recipe,
        heads=heads,
        encoder=encoder,
        update=update,
        languages=tuple(examples),
        examples=examples,
        batches=streams(recipe, plan, sizes, lengths),
        dev=dev,
        dev_by_task=dev if division is None else Encoded.of(division.dev, heads, encoder, recipe.max_length),
        test=test,
        precision=precision,
        loss_scale=LossScale(weights) if precision == "fp16" else None,
        division=division,
        split=split,
        digests=digests_of(corpus, replay if own_replay(recipe) else None),
        compiled=compiling.compiled(recipe, encoder, precision),
    )


def _encoder(recipe: Recipe, heads: HeadMap, corpus: Corpus) -> Encoder:
    """The model with its heads, as it begins; ``UserError`` where it cannot be trained as the recipe says."""
    encoder = load_encoder(recipe, heads, corpus)
    if (weight := encoder.non_finite_weight()) is not None:
        raise UserError(f"model: {recipe.model} cannot be trained: its weights {weight} are not finite")
    if recipe.packing:
        use_packing(encoder.model, encoder.room_for(recipe.max_length))
    return encoder


def _choose_what_trains(recipe: Recipe, encoder: Encoder, parts: Parts, precision: str) -> None:
    """Freeze, adapt, and say what is computed anew, as a recipe has it."""
    encoder.freeze(name for part in recipe.freeze for name in parts.named(part))
    if recipe.lora is not None:
        encoder.adapt(recipe.lora, recipe.seed, rounded=not recipe.shard and precision == "bf16")
    if recipe.gradient_checkpointing:
        checkpoint_layers(encoder.model)


def _check_vocabulary(recipe: Recipe, heads: HeadMap, kind: str) -> None:
    """Raise ``UserError`` where tokens are to be left out that the model says."""
    if recipe.ship_vocabulary == "trimmed" and not heads.can_trim:
        if heads.replay is not None and any(task.can_trim for task in heads.tasks):
            raise UserError("ship_vocabulary: a model that learns from replay says all tokens; set it to full")
        raise UserError(f"ship_vocabulary: a model of {kind} says all tokens, or reads none; set it to full")


def _check_batches(recipe: Recipe, heads: HeadMap) -> None:
    """Raise ``UserError`` where a batch is to be divided, or has one example, whose loss depends on others of it."""
    for name in (tasks.name_of(task) for task in heads.tasks if task.compares_within_batch):
        for key in ("micro_batch_size", "split_batch", "shard"):
            if getattr(recipe, key):
                raise UserError(
                    f"{key}: the examples of a batch are each other's negatives in {name}, so that it cannot be "
                    "divided; leave the key out (gradient_checkpointing: true saves memory, too)"
                )
        if recipe.batch_size == 1:
            raise UserError(f"batch_size: an example alone has no negatives in {name}; it must be at least 2")


def _check_packing(recipe: Recipe, heads: HeadMap, plan: Plan) -> None:
    """Raise ``UserError`` where texts are to be packed that cannot be."""
    if not recipe.packing:
        return
    for name in (tasks.name_of(task) for task in heads.tasks if not task.can_pack):
        raise UserError(f"packing: is for causal language models, not for {name}; set it to false")
    if not plan.splits_batches:
        raise UserError(f"packing: {recipe.method} reads the states of each text of a batch; set it to false")

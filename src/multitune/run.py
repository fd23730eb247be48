"""A run before its first step: data read, encoder loaded, method set up."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedTokenizerBase

from multitune import data, pseudo_tasks, tasks
from multitune.batching import Batches, seeded
from multitune.data import DATASETS, BadRecords, Corpus, Record, limited, texts
from multitune.data.rows import joined
from multitune.errors import RunError, UserError
from multitune.evaluate import Encoded
from multitune.methods import ExponentialAverage, Plan, SnapshotAverage, find
from multitune.methods.averaged_update import AveragedUpdate
from multitune.methods.update import Mixture, NamedParameters, Setup, Update, WordEmbedding
from multitune.models import encoder as encoders
from multitune.models import scratch
from multitune.models.encoder import Encoder
from multitune.precision import autocast, resolve
from multitune.pseudo_tasks import Division
from multitune.recipe import Recipe, describe, unknown
from multitune.sampling import proportional, uniform, unimax
from multitune.tasks import REPLAY, AnyTask, Replayed
from multitune.tasks.task import Example

log = logging.getLogger(__name__)


def load_corpus(recipe: Recipe) -> Corpus:
    """The recipe's data, cut to its limits; bad records stop it, or with ``skip_bad`` are left out and counted.

    Raises:
        UserError: an unknown data set, bad records, or whatever is wrong with its files or languages.
    """
    bad = BadRecords()
    corpus = read_corpus(recipe, bad)
    if not recipe.skip_bad:
        bad.refuse()
    for split, records in (("train", corpus.train), ("dev", corpus.dev), ("test", corpus.test)):
        for language, rows in records.items():
            if not rows and language in corpus.skipped:
                raise UserError(
                    f"skip_bad: leaves no {split} record of {language!r}; multitune data lists the bad ones"
                )
    if corpus.skipped:
        counts = ", ".join(f"{language} {count}" for language, count in corpus.skipped.items())
        log.warning("skip_bad: %d bad records are left out: %s", len(bad), counts)
    return cut(recipe, corpus)


def cut(recipe: Recipe, corpus: Corpus) -> Corpus:
    """The corpus with as many records of each language as the recipe allows."""
    return limited(corpus, train=recipe.train_limit, dev=recipe.dev_limit, test=recipe.test_limit)


def read_corpus(recipe: Recipe, bad: BadRecords) -> Corpus:
    """The recipe's data, not cut to its limits, without its bad records, which ``bad`` takes.

    Raises:
        UserError: an unknown data set, or whatever is wrong with its files or languages.
        RunError: there is not enough memory.
    """
    if recipe.data not in DATASETS:
        raise UserError(f"data: {unknown('data set', recipe.data, DATASETS)}")
    try:
        corpus = data.load(
            recipe.data,
            bad,
            path=recipe.path,
            languages=recipe.languages,
            unseen=recipe.unseen,
            columns=recipe.columns,
        )
    except MemoryError as error:
        raise RunError(
            f"data: not enough memory to read {recipe.data}: what helps is fewer languages, or smaller files"
        ) from error
    if recipe.select == "best" and corpus.test_is_dev:
        raise UserError(
            "select: best would choose on the very sentences that are reported: this data has no test split"
        )
    return corpus if recipe.task is None else texts.unlabelled(corpus)


def load_plan(recipe: Recipe) -> Plan:
    """The recipe's method with its options.

    Raises:
        UserError: an unknown method or option, or a value that is not allowed.
    """
    kind = find(recipe.method)
    try:
        plan = kind.model_validate(recipe.options)
    except ValidationError as error:
        raise UserError(f"options of {recipe.method}: {describe(error, kind)}") from error
    plan.check()
    if recipe.pseudo_tasks is not None and plan.one_model_per_task:
        raise UserError(f"pseudo_tasks: no language has a cluster of its own, whose model {recipe.method} would be")
    if recipe.replay is not None and plan.one_model_per_task:
        raise UserError(f"replay: {recipe.method} trains a model for each task, and would train one to replay")
    return plan


def probabilities(recipe: Recipe, sizes: Sequence[int]) -> Tensor:
    """How often each task is drawn, from the training examples of the languages; float64 [languages (+ replay)]."""
    if recipe.replay is None:
        return _of_languages(recipe, sizes, recipe.budget)
    share = recipe.replay.share
    languages = _of_languages(recipe, sizes, round(recipe.budget * (1 - share)))
    return torch.cat([languages * (1 - share), torch.tensor([share])])


def _of_languages(recipe: Recipe, sizes: Sequence[int], budget: int) -> Tensor:
    if recipe.sampling == "uniform":
        return uniform(len(sizes))
    if recipe.sampling == "unimax":
        return unimax(sizes, budget * recipe.batch_size, recipe.sampling_epochs)
    return proportional(sizes, recipe.sampling_exponent)


def replayed(recipe: Recipe, corpus: Corpus) -> Sequence[Record]:
    """The texts that the recipe replays: those of a data set of its own, or of the corpus; none without a replay.

    Raises:
        UserError: data without texts, or whatever is wrong with the data set.
    """
    replay = recipe.replay
    if replay is None:
        return []
    if corpus.task not in texts.TEXTS.keys() - {"translation", "masked_language_modelling"}:
        raise UserError(f"replay: goes beside another task of an encoder of text; data: {recipe.data} is {corpus.task}")
    source = corpus
    if replay.data is not None:
        keys = {"data": replay.data, "path": replay.path, "languages": replay.languages, "unseen": (), "columns": None}
        source = load_corpus(recipe.model_copy(update=keys | {"task": None, "select": "last"}))
    return joined(list(texts.unlabelled(source).train.values()))


@dataclass(frozen=True)
class Run:
    """A run with everything loaded, before or between its steps."""

    recipe: Recipe
    task: AnyTask
    encoder: Encoder
    update: Update
    languages: tuple[str, ...]
    """The training languages, or the pseudo-tasks; a task's number is its place here."""
    examples: Mapping[str, Sequence[Example]]
    batches: Mapping[str, Batches]
    dev: Encoded
    dev_by_task: Encoded
    """``dev``, or with pseudo-tasks its records by these."""
    test: Encoded
    precision: str
    division: Division | None
    """What the pseudo-tasks are; None where the tasks are languages."""

    def loss(self, mixture: Mixture, gradient: int) -> Tensor:
        """The method's loss of the tasks' next mini-batches, taken together; ``gradient`` numbers it, for dropout."""
        rows: dict[str, list[Example]] = {}
        for language in (self.languages[number] for number in mixture):
            drawn = [self.examples[language][row] for row in self.batches[language].next()]
            rows.setdefault(self.head_of(language), []).extend(drawn)
        examples = sum(map(len, rows.values()))
        draw = seeded(self.recipe.seed, "variation", gradient)
        # Dropout can only draw from torch's global generator: it is seeded anew for each computation, then put back.
        with torch.random.fork_rng(self.encoder.cuda_devices), autocast(self.encoder.device, self.precision):
            torch.manual_seed(seeded(self.recipe.seed, "dropout", gradient).initial_seed())
            losses = [self._loss(head, own, draw) * (len(own) / examples) for head, own in rows.items()]
        return torch.stack(losses).sum()

    def head_of(self, language: str) -> str:
        """The first language that is trained with the same head."""
        return next(code for code in self.languages if self.task.of(code) is self.task.of(language))

    def _loss(self, language: str, examples: Sequence[Example], draw: torch.Generator) -> Tensor:
        """The method's loss of examples that share the head of ``language``."""
        task, model = self.task.of(language), self.encoder.head(language)
        inputs, targets = task.collate([task.varied(example, draw) for example in examples], self.encoder.pad_id)
        inputs = self.encoder.on_device(self.encoder.training_inputs(inputs))
        targets = targets.to(self.encoder.device)
        with task.sparing(model, targets):
            return self.update.loss(model, inputs, lambda output: task.loss(output, targets))


def prepare(recipe: Recipe, corpus: Corpus, plan: Plan) -> Run:
    """Load the encoder, tokenise the corpus, set up the method.

    Raises:
        UserError: the model cannot be had, or the data cannot be divided into pseudo-tasks.
    """
    own, replay = tasks.of(corpus), replayed(recipe, corpus)
    task = Replayed(own) if replay else own
    encoder = load_encoder(recipe, task, corpus)
    division = pseudo_tasks.divide(recipe, corpus, encoder)
    if recipe.freeze_encoder:
        encoder.freeze()
    records = corpus.train if division is None else division.train
    train = Encoded.of({**records, **({REPLAY: replay} if replay else {})}, task, encoder, recipe.max_length)
    dev = Encoded.of(corpus.dev, task, encoder, recipe.max_length)
    if recipe.trim_vocabulary and task.can_trim:
        encoder.trim(train.tokens)
    encoder.remember()
    examples = train.examples
    batch_size = 1 if plan.mixes_tasks else recipe.batch_size
    setup = Setup(
        parameters=encoder.parameters(),
        pretrained=frozenset(name for name, _ in encoder.pretrained_parameters()),
        task_heads=frozenset(encoder.own_heads),
        embedding=word_embedding(encoder),
        probabilities=probabilities(recipe, [len(rows) for rows in records.values()]),
        budget=recipe.budget,
        batch_size=recipe.batch_size,
        make_optimizer=lambda parameters: make_optimizer(parameters, recipe),
        clip=recipe.clip,
        seed=recipe.seed,
    )
    return Run(
        recipe=recipe,
        task=task,
        encoder=encoder,
        update=averaged(plan.build(setup), setup, recipe),
        languages=tuple(examples),
        examples=examples,
        batches={
            language: Batches(language, task.of(language).sizes(rows), batch_size, recipe.seed)
            for language, rows in examples.items()
        },
        dev=dev,
        dev_by_task=dev if division is None else Encoded.of(division.dev, task, encoder, recipe.max_length),
        test=Encoded.of(corpus.test, task, encoder, recipe.max_length),
        precision=resolve(recipe.precision, encoder.device),
        division=division,
    )


def divided(recipe: Recipe, corpus: Corpus) -> Division | None:
    """The pseudo-tasks of a recipe with this data, not yet cut to its limits; None where it has none.

    Raises:
        UserError: the model cannot be had, or the data cannot be divided.
    """
    if recipe.pseudo_tasks is None:
        return None
    corpus = cut(recipe, corpus)
    return pseudo_tasks.divide(recipe, corpus, load_encoder(recipe, tasks.of(corpus), corpus))


def load_encoder(recipe: Recipe, task: AnyTask, corpus: Corpus) -> Encoder:
    """The recipe's model with a head for the task: pretrained, or new and made for the corpus.

    Raises:
        UserError: the model cannot be had.
    """
    if recipe.model.startswith(scratch.PREFIX):
        return scratch.build(recipe.model, task, corpus, layers=recipe.layers, dropout=recipe.dropout, seed=recipe.seed)
    return encoders.load(recipe.model, task, layers=recipe.layers, dropout=recipe.dropout, seed=recipe.seed)


def word_embedding(encoder: Encoder) -> WordEmbedding | None:
    """The sizes of an encoder of text; None of models that see, or that read with one half and write with the other."""
    config = encoder.model.config
    if config.is_encoder_decoder or not isinstance(encoder.tokenizer, PreTrainedTokenizerBase):
        return None
    weight = encoder.model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return WordEmbedding(hidden_size=config.hidden_size, embedding_size=weight.shape[1])


def averaged(update: Update, setup: Setup, recipe: Recipe) -> Update:
    """The method, with the recipe's weight averaging around it."""
    weights = [weight for _, weight in setup.parameters]
    if recipe.average == "ema":
        return AveragedUpdate(setup, update, ExponentialAverage(weights, recipe.average_decay), interval=1)
    if recipe.average == "snapshots":
        return AveragedUpdate(setup, update, SnapshotAverage(weights, recipe.average_last), recipe.validation_interval)
    return update


def make_optimizer(parameters: NamedParameters, recipe: Recipe) -> Optimizer:
    """AdamW, fused; weight decay on matrices that are not embeddings."""
    decayed = [weight for name, weight in parameters if weight.ndim > 1 and "embedding" not in name]
    others = [weight for name, weight in parameters if weight.ndim < 2 or "embedding" in name]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=recipe.learning_rate, fused=True)


def learning_rate(recipe: Recipe, gradients: int) -> float:
    """The rate of a step that begins after ``gradients`` computations: linear warm-up, then constant or to zero."""
    rising = recipe.warmup * recipe.budget
    if gradients < rising:
        return recipe.learning_rate * (gradients + 1) / (rising + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * (recipe.budget - gradients) / (recipe.budget - rising)

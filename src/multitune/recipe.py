"""One run as a value: its keys, each with its type, its default and what it means."""

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from multitune.errors import UserError, is_utf8
from multitune.mistakes import describe

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Size = Annotated[int, Field(ge=1, le=2**16)]
LONGEST_NAME = 255
"""Bytes of the name of a file."""
LARGEST_SEED = 2**32 - 1
"""The largest that every library takes: scikit-learn's is the smallest."""
_KEYS = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def _possible(path: str) -> str:
    """A path that a system can have, and a recipe's file."""
    if not is_utf8(path):
        raise ValueError("is no name in UTF-8, and a recipe holds no other; rename what it names")
    if "\0" in path or any(len(name.encode(errors="surrogatepass")) > LONGEST_NAME for name in path.split("/")):
        raise ValueError(f"has a name of more than {LONGEST_NAME} bytes, or with a zero byte, which no file can have")
    return path


def _possible_device(name: str) -> str:
    if re.fullmatch(_DEVICE, name) is None:
        raise ValueError(f"must be auto, cpu, cuda, cuda:N or mps, not {name!r}")
    return name


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of labels that none of the numbers they stand for, and no other name, can be taken for."""
    for name in names:
        if not name.strip() or name.isdecimal():
            raise ValueError(f"must be names, none blank or a whole number, not {name!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"has {next(name for name in names if names.count(name) > 1)!r} twice")
    return names


_DEVICE = r"auto|cpu|mps|cuda(:(0|[1-9]\d{0,2}))?"
DeviceName = Annotated[
    str, AfterValidator(_possible_device), WithJsonSchema({"type": "string", "pattern": f"^({_DEVICE})$"})
]
PathName = Annotated[str, AfterValidator(_possible)]


class PseudoTasks(BaseModel):
    """How the training records are divided into tasks (multitune/pseudo_tasks)."""

    model_config = _KEYS

    clusters: Annotated[int, Field(ge=2, le=2**16)] = 4
    """Components of the Gaussian mixture, each of which is a task."""
    pca: Size = 50
    """Principal components of the pretrained model's mean-pooled states that the mixture is fitted to."""


class Replay(BaseModel):
    """Masked language modelling, or next tokens with a causal model, as one more task (multitune/tasks/heads.py)."""

    model_config = _KEYS

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the draws of tasks that are the replay's."""
    data: str | None = None
    """The data set whose training texts are replayed; null takes those of the run itself."""
    path: PathName | None = None
    """Folder of that data set."""
    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Languages of that data set; null takes its own choice."""

    @model_validator(mode="after")
    def _has_data(self) -> "Replay":
        """Refuse keys of a data set that is not named: the run's own texts are all replayed."""
        for key in ("path", "languages"):
            if self.data is None and getattr(self, key) is not None:
                raise ValueError(f"{key} is of the data set that replay.data names, and there is none; add data, too")
        return self


class Lora(BaseModel):
    """Low-rank adapters, which train in place of the pretrained weights (multitune/models/lora.py)."""

    model_config = _KEYS

    rank: Size = 16
    """r: rows of A and columns of B."""
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    """The adapters' product is multiplied by alpha / rank."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Linear layers of the pretrained body that get adapters: all of them, or those whose names, or the ends of whose
    names, are listed (``[query, value]``)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Dropout probability of what the adapters read."""


class Recipe(BaseModel):
    """Everything that decides the outcome of one run.

    Costs are counted in gradient computations: one forward and backward pass of one task's mini-batch.
    """

    model_config = _KEYS

    if not TYPE_CHECKING:  # type checkers know the keys from the fields

        def __init__(self, /, **keys: Any) -> None:
            """Take the keys of a recipe; raise UserError, as a recipe file does, where one is wrong."""
            try:
                super().__init__(**keys)
            except ValidationError as error:
                raise UserError(describe(error, Recipe)) from error

    model: PathName = "offline:e5-small"
    """A Hub name, a local folder, ``offline:e5-small``, ``offline:smollm2`` or ``offline:gemma3-270m`` (chat), or
    without pretraining ``scratch:transformer`` (translation) and ``scratch:convnet`` (images)."""
    layers: Count | None = None
    """Keep only the first layers of the encoder; null keeps all."""
    dropout: Share | None = None
    """Dropout probability of the encoder and its head while training; null keeps the model's own."""
    freeze: tuple[str, ...] = ()
    """Parts of the pretrained model that do not train: ``embeddings``, ``layers 0-1``, ``decoder layers 0-1``, or
    ``encoder``, all that pretraining left, so that only the head trains."""
    lora: Lora | None = None
    """Train low-rank adapters and the head alone; null trains the pretrained weights themselves."""
    trim_vocabulary: bool = True
    """Train only the embedding rows of tokens that the training data contain; nothing is lost. Where a kind of task
    predicts tokens, all rows train all the same."""

    data: str
    """A data set by its name, ``folder`` for files of your own, or ``hub:owner/name[:config]`` for any data set of the
    Hugging Face Hub."""
    task: str | None = None
    """The kind of task, where it is not the data set's own: ``masked_language_modelling`` and ``causal_lm`` take the
    texts of any set (``causal_lm`` the assistant's as calls), and the columns of ``data: folder`` may be the fields of
    several kinds."""
    path: PathName | dict[str, PathName] | None = None
    """Folder with the data set's files, of ``data: folder`` perhaps a single file; or data set -> folder. A set without
    one comes from the Hub."""
    columns: dict[str, str] | None = None
    """Of ``data: folder`` and ``hub:``: field of a record, ``language`` or ``split`` -> column of the files; null: text
    and label."""
    labels: dict[str, str] | None = None
    """Label (of entities: their type) -> the one that it is taken for, or ``ignore``: neither learnt nor scored."""
    scheme: Literal["iob1", "iob2", "bioes"] | None = None
    """The scheme of entity tags in the files, which become IOB2; null takes those of training languages for IOB2."""
    strip_labels: bool = False
    """Take blanks and invisible characters off the edges of labels."""
    label_names: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """The labels that whole numbers in the files stand for, from 0."""
    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Languages to train on; null takes the data set's own choice."""
    unseen: tuple[str, ...] | None = None
    """Languages never trained on, evaluated at the end, and other data sets of the same kind (``mlqa``, ``xquad:de``);
    null takes the data set's own choice."""
    skip_bad: bool = False
    """Leave bad records out and count them; otherwise they stop the run."""
    max_length: Annotated[int, Field(ge=8, le=2**20)] = 128
    """Tokens after which a text is cut."""
    train_limit: Count | None = None
    """At most so many training examples a language; null takes all."""
    dev_limit: Count | None = 50
    """At most so many dev examples a language in the validations during training; null takes all."""
    test_limit: Count | None = None
    """At most so many test examples a language; null takes all."""
    pseudo_tasks: PseudoTasks | None = None
    """Divide the training records into clusters, which are then the tasks; null trains on languages."""

    method: str = "sequential_reptile"
    """A name that ``multitune methods`` lists."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """The method's own options, as ``multitune methods`` lists them."""
    sampling: Literal["proportional", "uniform", "unimax", "epochs"] = "proportional"
    """How much each language has of the training: by its training examples N as N^q; alike; alike, but no language's
    examples more than ``sampling_epochs`` times (UniMax); or shuffled epochs of the concatenated data."""
    sampling_exponent: Annotated[float, Field(ge=0.0)] = 0.2
    """q, the exponent of sampling: proportional."""
    sampling_epochs: Annotated[float, Field(gt=0.0)] = 5.0
    """The most epochs of a language's data under sampling: unimax."""
    task_weights: Literal["sampling", "equal"] = "sampling"
    """Of the tasks in a step of a combining method: sampling gives each the share that ``sampling`` asks for, equal one
    weight to all, as the papers do."""
    replay: Replay | None = None
    """Mix in the model's own language modelling, to replay what pretraining taught; null does not."""

    average: Literal["none", "ema", "snapshots"] = "none"
    """Ship an average of the weights: exponential over all steps (outer steps, where the method has two loops), or the
    mean of the last snapshots, one taken at each validation."""
    average_horizon: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Of average: ema: the share of the budget after which a value's weight has fallen to 1/e."""
    average_last: Count = 5
    """Of average: snapshots: how many are averaged."""

    budget: Count = 2400
    """Gradient computations to spend."""
    batch_size: Size = 16
    """Examples of one task in one gradient computation."""
    micro_batch_size: Size | None = None
    """Examples that are computed at a time: a batch's gradient is the sum of its micro-batches'; null computes a batch
    at once."""
    packing: bool = False
    """Of causal language models: lay the texts of a batch end to end in one row, without padding, and compute what all
    of them begin with once; the gradient is the same, in less time and memory."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of layers, and compute the rest anew in the backward pass: less memory, more time."""
    compile: bool = False
    """Have torch.compile make the layers of an encoder of text or a causal language model: fewer kernels, and on a card
    CUDA graphs. It takes a minute before the first step, and is no faster on a CPU. Other last bits."""
    split_batch: bool = False
    """On several ranks (torchrun): each has a part of every mini-batch, in the place of tasks or trajectories of its
    own."""
    shard: bool = False
    """On several ranks (torchrun): each has a part of every weight, gradient and moment (fully_shard), and of every
    mini-batch, for models that do not fit on one."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    """Peak learning rate of AdamW (of the inner loop, where the method has two)."""
    schedule: Literal["linear", "constant"] = "linear"
    """The learning rate after warm-up: linear to zero at the end of the budget, or constant."""
    warmup: Share = 0.1
    """Share of the budget over which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Decoupled weight decay of matrices; embeddings, biases and layer norms have none."""
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """AdamW's momentum: how much of the mean of past gradients a step keeps; 0: steps follow their own gradient."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """What the learning rate is multiplied by from each layer to the one below it, embeddings last; 1 gives all layers
    the same."""
    anchor: Annotated[float, Field(ge=0.0)] = 0.0
    """Decoupled decay toward the pretrained weights (L2-SP); new heads have none."""
    clip: Annotated[float, Field(gt=0.0)] | None = 1.0
    """Largest L2 norm of an update's gradient; null leaves it as it is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward and backward pass; auto takes bf16 where the processor has instructions for it, else
    fp32. fp16, for cards without bf16, scales losses (a step whose gradient overflows is skipped)."""
    device: DeviceName = "auto"
    """Where the model runs: cpu, cuda, cuda:N or mps; auto takes CUDA where there is a device of it, else the CPU.
    Another one gives other last bits."""
    threads: Count | None = None
    """Threads of the CPU; null takes one per core that the process may use. Another number gives other last bits."""
    deterministic: bool = False
    """On a card: take the algorithms that give the same bits each time, which are slower; an operation that has none
    ends the run. On a CPU all are such."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    """Seeds the new weights, the order of batches and tasks, and dropout. Never the split of the data."""

    validate_every: Count | None = None
    """Gradient computations between validations on dev; null makes six in a run. Each leaves a checkpoint."""
    checkpoint_every: Count | None = None
    """Gradient computations between further checkpoints; null leaves it at those of the validations."""
    probe_every: Count | Literal["auto"] | None = None
    """Gradient computations between probes of gradient similarity and drift; auto spends at most 5 % of the run's time,
    null makes none."""
    probe_examples: Count | None = None
    """Examples of each language whose gradient a probe takes; null takes ``batch_size``. More are less noisy."""
    non_finite_steps: Count = 10
    """Skipped steps in a row after which the run stops. A step is skipped when its loss or gradient is NaN or
    infinite."""
    select: Literal["last", "best"] = "last"
    """Which weights are evaluated and shipped: those at the end, or the best on dev."""
    patience: Count | None = None
    """Validations in a row without a better average on dev after which ``train`` stops; null spends the budget.
    Comparisons refuse it: their budgets are equal."""
    save_model: bool = True
    """Write ``model/`` at the end."""
    ship_vocabulary: Literal["full", "trimmed"] = "full"
    """What ``model/`` knows: all tokens; or those of the run's data, single characters and special tokens, which makes
    the model smaller and leaves its predictions for these data as they are."""
    keep_checkpoints: bool = False
    """Leave the newest checkpoints when the run is finished."""

    @property
    def data_name(self) -> str:
        """What a reader knows the data by: the set's name; of a user's own the last name of their path."""
        path = self.path.get(self.data) if isinstance(self.path, dict) else self.path
        last = PurePath(path).name.strip(".") if self.data == "folder" and path is not None else ""
        return last or self.data

    @property
    def probe_batch(self) -> int:
        """Examples of each language in a probe of gradient similarity."""
        return self.probe_examples or self.batch_size

    @property
    def validation_interval(self) -> int:
        """Gradient computations between two validations."""
        return self.validate_every or max(1, self.budget // 6)

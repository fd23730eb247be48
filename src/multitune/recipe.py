"""One run as a value: read from YAML with ``key=value`` overrides, validated, saved with the run."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, WithJsonSchema

from multitune import plugins
from multitune.errors import UserError, kind_of_value
from multitune.mistakes import describe

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Size = Annotated[int, Field(ge=1, le=2**16)]
LONGEST_NAME = 255
"""Bytes of the name of a file."""
LARGEST_SEED = 2**32 - 1
"""The largest that every library takes: scikit-learn's is the smallest."""
LARGEST = 2**16
"""Bytes of a recipe file."""
_KEYS = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def _possible(path: str) -> str:
    """A path that a system can have."""
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
    """Masked language modelling as one more task (multitune/tasks/heads.py)."""

    model_config = _KEYS

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the draws of tasks that are the replay's."""
    data: str | None = None
    """The data set whose training texts are replayed; null takes those of the run itself."""
    path: PathName | None = None
    """Folder of that data set."""
    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Languages of that data set; null takes its own choice."""


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
    """Of ``data: folder`` and ``hub:``: field of a record -> column of the files; null: text and label."""
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
    """Threads of the CPU; null takes what torch finds. Another number gives other last bits."""
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
    non_finite_steps: Count = 10
    """Skipped steps in a row after which the run stops. A step is skipped when its loss or gradient is NaN or
    infinite."""
    select: Literal["last", "best"] = "last"
    """Which weights are evaluated and shipped: those at the end, or the best on dev."""
    patience: Count | None = None
    """Validations in a row without a higher average on dev after which ``train`` stops; null spends the budget.
    Comparisons refuse it: their budgets are equal."""
    save_model: bool = True
    """Write ``model/`` at the end."""
    ship_vocabulary: Literal["full", "trimmed"] = "full"
    """What ``model/`` knows: all tokens; or those of the run's data, single characters and special tokens, which makes
    the model smaller and leaves its predictions for these data as they are."""
    keep_checkpoints: bool = False
    """Leave the newest checkpoints when the run is finished."""

    @property
    def validation_interval(self) -> int:
        """Gradient computations between two validations."""
        return self.validate_every or max(1, self.budget // 6)


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as it stands in a file.

    Attributes:
        run: keys and values.
        methods: method -> the keys and values that it has of its own in a comparison.
        source: the file's path, which error messages name.
    """

    run: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    source: str

    @property
    def name(self) -> str:
        """The file's name without its ending: the default name of run folders."""
        return Path(self.source).stem

    def resolve(self, method: str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """The run of one method: the file's keys, under that method's own ones, under the overrides.

        Options beside ``method:`` are that method's: another one does not get them.

        The plugins of other packages are loaded first, whose names a recipe may use.

        Raises:
            UserError: a key that no recipe has, a value that is not allowed for it, or a plugin that is broken.
        """
        plugins.load()
        given = dict(overrides or {})
        name = method or given.get("method") or self.run.get("method") or Recipe.model_fields["method"].default
        merged = merge(merge(self._keys_for(name), self.methods.get(str(name), {})), given) | {"method": name}
        return validated(merged, self.source)

    def _keys_for(self, method: object) -> dict[str, Any]:
        """The file's keys for all methods; its options are those of the method that it names, if it names one."""
        own = self.run.get("method", method)
        return {key: value for key, value in self.run.items() if key != "options" or own == method}


AnyRecipe = Recipe | RecipeFile | str | Path
"""A run, a recipe file that was read, or the path of one."""


def as_file(recipe: AnyRecipe) -> RecipeFile:
    """The recipe file that any kind of recipe stands for.

    Raises:
        UserError: as ``read`` does.
    """
    if isinstance(recipe, RecipeFile):
        return recipe
    if isinstance(recipe, Recipe):
        return RecipeFile(run=recipe.model_dump(mode="json"), methods={}, source="recipe")
    return read(recipe)


class _Loader(yaml.SafeLoader):
    """YAML as a reader means it: ``no`` is a language, ``1e-4`` a number, a key given twice a mistake, no aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):  # others are refused below
            if key.value in seen:
                problem = f"key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """YAML that ``_Loader`` reads back: quotes what either kind of loader would not take for text; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Escape what does not print: YAML has line breaks of its own, which it folds."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.yaml_implicit_resolvers = {
    first: [resolver for loader in (yaml.SafeLoader, _Loader) for resolver in loader.yaml_implicit_resolvers[first]]
    for first in yaml.SafeLoader.yaml_implicit_resolvers
}


def read(path: str | Path) -> RecipeFile:
    """Read a recipe file.

    Raises:
        UserError: no such file, not YAML, or not a mapping of keys to values.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise UserError(f"{path}: a recipe has at most {LARGEST} bytes, and this file has more")
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the recipe: {_reason(error)}") from error
    content = parse(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values; this file holds {kind_of_value(content)}")
    methods = content.pop("methods", None) or {}
    if not isinstance(methods, dict) or not all(isinstance(keys, dict) for keys in methods.values()):
        raise UserError(f"{path}: methods: must map methods to recipe keys, e.g. mtl: {{learning_rate: 1e-4}}")
    for name, keys in methods.items():
        if "method" in keys:
            raise UserError(f"{path}: methods: {name} cannot have a key method: it is {name} already")
    return RecipeFile(run=content, methods=methods, source=str(path))


def parse(text: str, source: str) -> Any:
    """Parse YAML from a person: safe, and with one-line errors that name ``source`` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{source}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """``["budget=400", "options.outer_lr=0.5"]`` -> ``{"budget": 400, "options": {"outer_lr": 0.5}}``."""
    overrides: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise UserError(f"{word!r} on the command line: write recipe keys as key=value, e.g. budget=400")
        overrides = merge(overrides, nested(key, parse(value, f"{key} on the command line")))
    return overrides


def nested(key: str, value: Any) -> dict[str, Any]:
    """``("options.outer_lr", 0.5)`` -> ``{"options": {"outer_lr": 0.5}}``."""
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def validated(values: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from plain values.

    Raises:
        UserError: naming ``source``, the key, what is wrong and what is allowed.
    """
    try:
        return Recipe(**{str(key): value for key, value in values.items()})
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as it is saved with a run; reading it back gives the same recipe."""
    return dumped(recipe.model_dump(mode="json"))


def dumped(keys: Mapping[str, Any]) -> str:
    """Plain keys and values as YAML that ``parse`` reads back alike: a key a line, its list or mapping beside it."""
    return "".join(
        yaml.dump(
            {key: value},
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=None if isinstance(value, dict | list) else False,
        )
        for key, value in keys.items()
    )


def is_saved_in(path: Path, recipe: Recipe) -> bool:
    """Whether a file holds this recipe; keys that an earlier version did not write have their defaults.

    Precision and threads, which are settled when a run begins, agree where one of the two leaves them open. The device
    may be another one: a run can move.

    Raises:
        UserError: as ``read`` and ``resolve`` do.
    """
    return _same(read(path).resolve(), recipe)


def is_text_of(text: str, recipe: Recipe, source: str) -> bool:
    """As ``is_saved_in``, for a text that ``to_yaml`` has made; ``source`` begins the message of an error."""
    content = parse(text, source)
    return isinstance(content, dict) and _same(validated(content, source), recipe)


def _same(saved: Recipe, recipe: Recipe) -> bool:
    settled = {
        key: getattr(recipe, key)
        for key, left_open in (("precision", "auto"), ("threads", None))
        if left_open in (getattr(saved, key), getattr(recipe, key))
    }
    return saved.model_copy(update=settled | {"device": recipe.device}) == recipe


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"

"""Recipes as files: YAML with ``key=value`` overrides, read and validated, and written with the run."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from multitune import plugins
from multitune.errors import UserError, kind_of_value
from multitune.recipe import Recipe

LARGEST = 2**16
"""Bytes of a recipe file."""


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
        """The file's name without its ending, of data the folder's: the default name of run folders."""
        stem = Path(self.source).stem
        return stem if stem.strip(".") else Path(self.source).resolve().name

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
    and the place of the data may be other ones: a run can move, and hashes tell whether its records are the same.

    Raises:
        UserError: as ``read`` and ``resolve`` do.
    """
    return _same(read(path).resolve(), recipe)


def is_text_of(text: str, recipe: Recipe, source: str) -> bool:
    """As ``is_saved_in``, for a text that ``to_yaml`` has made; ``source`` begins the message of an error."""
    content = parse(text, source)
    return isinstance(content, dict) and _same(validated(content, source), recipe)


def other_keys(path: Path, recipe: Recipe) -> str:
    """The keys of a file that keep it from holding this recipe, as ``is_saved_in`` has it, with commas between."""
    saved = read(path).resolve()
    may_differ = _open(saved, recipe)
    keys = (key for key in Recipe.model_fields if key not in may_differ)
    return ", ".join(key for key in keys if getattr(saved, key) != getattr(recipe, key))


def _same(saved: Recipe, recipe: Recipe) -> bool:
    return saved.model_copy(update=_open(saved, recipe)) == recipe


def _open(saved: Recipe, recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe in which a saved one may be another, with their values."""
    settled = [
        key
        for key, left_open in (("precision", "auto"), ("threads", None))
        if left_open in (getattr(saved, key), getattr(recipe, key))
    ]
    return {key: getattr(recipe, key) for key in (*settled, "device", "path")}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"

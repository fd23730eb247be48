"""A command that takes recipe keys as ``key=value``, and says so to those who write them as options."""

from itertools import pairwise
from typing import get_args, get_origin

import typer
from typer.core import TyperCommand

from multitune.errors import UserError


class RecipeCommand(TyperCommand):
    """A command with overrides of recipe keys."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the words of the command line.

        Raises:
            UserError: a recipe key is written as an option; the message says how to write it.
        """
        options = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        for word, following in pairwise([*args, ""]):
            if word == "--" or ctx.resilient_parsing:
                break
            option, _, value = word.partition("=")
            if option.startswith("-") and option not in options:
                _refuse_key(option, value or following, options)
        return super().parse_args(ctx, args)


def _refuse_key(option: str, value: str, options: set[str]) -> None:
    """Raise UserError where an option that does not exist is a recipe key, or where its value is decided otherwise."""
    from multitune.mistakes import ADVICE, key_of, plain
    from multitune.recipe import Recipe

    name, dot, rest = option.lstrip("-").partition(".")
    if advice := ADVICE.get(plain(name)):
        raise UserError(f"{option}: {advice}")
    key = key_of(name, Recipe.model_fields, (plain(each.lstrip("-")) for each in options))
    if key is None:
        return
    written = f"{key}{dot}{rest}={_as_value(key, value)}"
    if f"{option}s" in options:
        raise UserError(f"{option}: did you mean {option}s, or the recipe key {written}?")
    raise UserError(f"{option}: recipe keys are written without dashes: {written}")


def _as_value(key: str, following: str) -> str:
    """What stands behind an option as the value of a key."""
    from multitune.recipe import Recipe

    kind = Recipe.model_fields[key].annotation if key in Recipe.model_fields else None
    if not following or following.startswith("-") or (kind is bool and "=" in following):
        return "true" if kind is bool else "VALUE"
    is_list = any(get_origin(each) is tuple for each in (kind, *get_args(kind)))
    return f"[{following}]" if is_list and not following.startswith("[") else following

"""The recipes that come with multitune: in its wheel, or beside its source where it is installed in place."""

from pathlib import Path

from multitune.errors import UserError, unknown

_PACKAGE = Path(__file__).parents[1]
PLACES = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")


def names() -> dict[str, Path]:
    """Name -> file of each recipe, such as ``demo`` and ``small/table2``.

    Raises:
        UserError: there is none.
    """
    folder = next((place for place in PLACES if place.is_dir()), None)
    if folder is None:
        raise UserError(
            "recipes: this installation has none; install multitune again, from its wheel or its repository"
        )
    files = sorted(folder.glob("**/*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def path_of(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: there is none of that name.
    """
    known = names()
    if name not in known:
        raise UserError(f"recipes: {unknown('recipe', name, known)}")
    return known[name]


def summary(file: Path) -> str:
    """The first line of a recipe, which says what it is for."""
    first, *_ = file.read_text(encoding="utf-8").splitlines()
    return first.removeprefix("# ")

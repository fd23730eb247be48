"""Files and folders that the system does not let be read are told: none is missing in silence, none a bad record."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from pyarrow import parquet

import multitune as mt
from builders import png
from multitune.commands.init import recipe_for
from multitune.data.bad import BadRecords
from multitune.errors import UserError
from multitune.training.loading import read_corpus

ROWS = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(60)]
TSV = "index_id\tcategory\ttext\n" + "".join(f"{n}\t{row['label']}\t{row['text']}\n" for n, row in enumerate(ROWS))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users may look into, unlike pytest's."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def written(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".png":
        path.write_bytes(png())
    else:
        path.write_text(TSV if path.suffix == ".tsv" else "".join(json.dumps(row) + "\n" for row in ROWS))


CLOSED: dict[str, tuple[str, str, list[str], str, int, str]] = {
    # data set, its path, files, which of them or their folders is closed, its mode, what is said of it
    "a file": ("folder", "own", ["own/de.jsonl", "own/fi.jsonl"], "own/fi.jsonl", 0, "own/fi.jsonl"),
    "a parquet file": ("folder", "own", ["own/de.parquet", "own/fi.parquet"], "own/fi.parquet", 0, "own/fi.parquet"),
    "a file alone": ("folder", "own/de.jsonl", ["own/de.jsonl"], "own", 0, "own/de.jsonl"),
    "a folder": ("folder", "own", ["own/de.jsonl"], "own", 0, "own"),
    "a folder that cannot be listed": ("folder", "own", ["own/de.jsonl"], "own", 0o311, "own"),
    "a folder that can be listed alone": ("folder", "own", ["own/de.jsonl"], "own", 0o644, "own"),
    "a folder above": ("folder", "above/own", ["above/own/de.jsonl"], "above", 0, "above/own"),
    "a language's folder": (
        "sib200",
        "sib",
        [f"sib/{code}/{split}.tsv" for code in ("deu_Latn", "fin_Latn") for split in ("train", "dev", "test")],
        *("sib/fin_Latn", 0, "sib/fin_Latn"),
    ),
    "a label's folder": ("images", "own", ["own/task/x/1.png", "own/task/y/1.png"], "own/task/y", 0, "own/task/y"),
}


@pytest.mark.parametrize(("data", "path", "files", "closed", "mode", "said"), CLOSED.values(), ids=CLOSED)
def test_what_is_closed_is_told(
    open_folder: Path, data: str, path: str, files: list[str], closed: str, mode: int, said: str
) -> None:
    for name in files:
        written(open_folder, name)
    recipe = mt.Recipe(data=data, path=str(open_folder / path), skip_bad=True)
    assert refused(recipe, open_folder / closed, mode) == f"{open_folder / said}: cannot be read: Permission denied"


def refused(recipe: mt.Recipe | Path, closed: Path, mode: int) -> str:
    """What is said of a recipe, or of the path of data, to somebody to whom a file or folder is closed."""
    user, before = os.geteuid(), closed.stat().st_mode
    with suppress(UserError):
        read(recipe)  # what is imported when it is first needed may be root's
    closed.chmod(mode)
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(UserError) as error:
            read(recipe)
    finally:
        os.seteuid(user)
        closed.chmod(before)
    return str(error.value)


def read(recipe: mt.Recipe | Path) -> None:
    if isinstance(recipe, Path):
        recipe_for(recipe)
    else:
        read_corpus(recipe, BadRecords())


@pytest.mark.parametrize(("data", "closed"), [("own/de.jsonl", "own"), ("own", "own"), ("above/own", "above")])
def test_data_that_are_closed_are_told_where_they_are_named_alone(open_folder: Path, data: str, closed: str) -> None:
    written(open_folder, "own/de.jsonl")
    written(open_folder, "above/own/de.jsonl")
    said = refused(open_folder / data, open_folder / closed, 0)
    assert said == f"{open_folder / data}: cannot be read: Permission denied"

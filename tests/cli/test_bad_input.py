"""Bad input as a user meets it on the command line: exit code 2, one line that names file and line, nothing written."""

import gzip
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from builders import png
from multitune.cli.app import main
from multitune.data import lines

PANX = "model: {model}\ndata: panx\npath: data\nlanguages: [aa]\nunseen: []\nbudget: 4\nmethod: mtl\n"
FOLDER = "model: {model}\ndata: folder\npath: data\nlanguages: [aa]\nunseen: []\nbudget: 4\nmethod: mtl\n"
SQUAD = "model: {model}\ndata: squad\npath: data\nbudget: 4\nmethod: mtl\n"
PARALLEL = "model: scratch:transformer\ndata: multi30k\npath: data\nlanguages: [de]\nunseen: []\nbudget: 4\n"
IMAGES = "model: scratch:convnet\ndata: images\npath: data\nbudget: 4\nmethod: mtl\n"

TAGS = "Ana\tB-PER\nsees\tO\n\n"
CSV = "text,label\none,x\ntwo,y\n"


def squad(answer: str, start: int | None) -> bytes:
    """A file with one question about "ab cd"."""
    qas = [{"id": "1", "question": "which?", "answers": [{"text": answer, "answer_start": start}]}]
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "ab cd", "qas": qas}]}]}).encode()


def tags(train: str | bytes, dev: str | bytes = TAGS) -> dict[str, str | bytes]:
    return {"data/train-aa.tsv": train, "data/dev-aa.tsv": dev}


def table(train: str | bytes, dev: str | bytes = CSV) -> dict[str, str | bytes]:
    return {"data/train-aa.csv": train, "data/dev-aa.csv": dev, "data/test-aa.csv": CSV}


def captions(source: bytes, target: bytes) -> dict[str, str | bytes]:
    good = gzip.compress(b"a\n")
    others = {f"data/{split}.{code}.gz": good for split in ("val", "test_2016_flickr") for code in ("en", "de")}
    return {**others, "data/train.en.gz": source, "data/train.de.gz": target}


def slip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.png", png())
        archive.writestr("../../b/2.png", png())
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.array([{}], dtype=object), y=np.array([1]))
    return file.getvalue()


ROWS: dict[str, tuple[str | bytes, Mapping[str, str | bytes], list[str], str]] = {
    # the recipe, files, overrides, what is said
    "unknown key": (PANX, tags(TAGS), ["bugdet=3"], "unknown key 'bugdet' (did you mean 'budget'?)"),
    "unknown method": (
        PANX,
        tags(TAGS),
        ["method=reptil"],
        "method: unknown method 'reptil' (did you mean 'reptile'?)",
    ),
    "unknown language": (PANX, tags(TAGS), ["languages=[zz]"], "languages: no data for 'zz'"),
    "unknown model": (PANX, tags(TAGS), ["model=./nowhere"], "model: cannot load './nowhere'"),
    "empty file": (PANX, tags(""), [], "data/train-aa.tsv"),
    "three columns": (PANX, tags("Ana\tx\tB-PER\n"), [], "data/train-aa.tsv:1: 3 columns"),
    "not IOB2": (PANX, tags("Ana\tO\nBela\tI-PER\n"), [], "data/train-aa.tsv:2: 'I-PER' after 'O'"),
    "mixed tag schemes": (PANX, tags("Ana\tB-PER\nBela\tE-PER\n"), [], "data/train-aa.tsv:2: "),
    "no training data": (
        PANX,
        {"data/dev-aa.tsv": TAGS, "data/train-bb.tsv": TAGS, "data/dev-bb.tsv": TAGS},
        [],
        "languages: no data for 'aa'",
    ),
    "invalid UTF-8": (PANX, tags(b"Ana\tB-PER\n\xff\tO\n"), [], "data/train-aa.tsv:2: not UTF-8"),
    "a label that is taken for one that there is not": (
        FOLDER + "labels: {x: nothing}\n",
        table(CSV),
        [],
        "labels: 'x' cannot be 'nothing'; allowed: ignore, y",
    ),
    "labels of records that have none": (
        SQUAD + "labels: {x: ignore}\n",
        {"data/train-v1.1.json": squad("cd", 3), "data/dev-v1.1.json": squad("cd", 3)},
        [],
        "labels: records of question_answering have no labels that could be taken for others",
    ),
    "entities named by their tags": (
        PANX + "labels: {O: ignore}\n",
        tags(TAGS),
        [],
        "labels: 'O' is not to be taken for others; entities are named by their type",
    ),
    "a label column missing": (FOLDER, table("text,lable\none,x\n"), [], "data/train-aa.csv"),
    "a missing answer offset": (
        SQUAD,
        {"data/train-v1.1.json": squad("cd", None), "data/dev-v1.1.json": squad("cd", 3)},
        [],
        "data/train-v1.1.json:1: question '1': answer_start is None; it must count the characters before the answer",
    ),
    "JSON that is none": (
        SQUAD,
        {"data/train-v1.1.json": b'{"data":\n[', "data/dev-v1.1.json": squad("cd", 3)},
        [],
        "data/train-v1.1.json:2: not JSON",
    ),
    "deep JSON": (
        SQUAD,
        {"data/train-v1.1.json": b"[" * 100_000, "data/dev-v1.1.json": squad("cd", 3)},
        [],
        "data/train-v1.1.json:1: JSON too deeply nested",
    ),
    "a number without end": (
        SQUAD,
        {"data/train-v1.1.json": b"[" + b"9" * 100_000 + b"]", "data/dev-v1.1.json": squad("cd", 3)},
        [],
        "data/train-v1.1.json:1: not JSON: Exceeds the limit",
    ),
    "a label in no column": (FOLDER, table("text,label\none,\n"), [], "data/train-aa.csv:2: label is blank"),
    "fewer columns than the header": (FOLDER, table("text,label\none\n"), [], "data/train-aa.csv:2: 1 columns"),
    "a column that the files lack": (
        FOLDER,
        table(CSV),
        ["columns={text: text, label: intent}"],
        "no column 'intent' for label",
    ),
    "columns of no task": (FOLDER, table(CSV), ["columns.txt=text"], "columns: "),
    "a line too long": (
        FOLDER,
        table(b"text,label\n" + b"x" * (lines.LONGEST + 1) + b"\none,x\ntwo,y\n"),
        [],
        "data/train-aa.csv:2: a line of more than 4194304 bytes",
    ),
    "control characters in a file's name": (
        FOLDER,
        {"data/train-\x1b[31m.csv": CSV, "data/dev-\x1b[31m.csv": CSV, "data/test-\x1b[31m.csv": CSV},
        [],
        "there is some for: \\x1b[31m",
    ),
    "a language that is a folder above": (
        FOLDER,
        {f"data/{split}-...csv": CSV for split in ("train", "dev", "test")},
        ["languages=[..]"],
        "languages: '..' cannot be the name of a folder",
    ),
    "answer not at its offset": (
        SQUAD,
        {"data/train-v1.1.json": squad("cd", 1), "data/dev-v1.1.json": squad("cd", 3)},
        [],
        "answer 'cd' is not at its offset 1",
    ),
    "unequal lengths": (PARALLEL, captions(gzip.compress(b"a\nb\n"), gzip.compress(b"a\n")), [], "train.en.gz has 2"),
    "a gz cut short": (PARALLEL, captions(gzip.compress(b"a\nb\n")[:-6], gzip.compress(b"a\nb\n")), [], "cut short"),
    "an image that does not decode": (
        IMAGES,
        {"data/train/x/1.png": b"no", "data/train/y/2.png": b"no", "data/test/x/1.png": b"no"},
        [],
        "1.png",
    ),
    "an npz with pickled objects": (IMAGES, {"data/x.npz": pickled()}, [], "data/x.npz: the npz file is damaged"),
    "a zip that leads out": (IMAGES, {"data/x.zip": slip()}, [], "data/x.zip/../../b/2.png: its path leads out"),
    "a YAML bomb": ("a: &a [x]\nb: [*a, *a]\n", {}, [], "recipe.yaml:2: not valid YAML: aliases are not allowed"),
    "a YAML tag": ("data: !!python/object/apply:os.system [id]\n", {}, [], "recipe.yaml:1: not valid YAML"),
    "a recipe too large": ("data: panx\n" + "#" * 70_000, {}, [], "recipe.yaml: a recipe has at most 65536 bytes"),
    "a recipe that is none": ("- panx\n", {}, [], "recipe.yaml: a recipe is a mapping of keys to values"),
    "a recipe that is not UTF-8": (b"data: \xff\n", {}, [], "recipe.yaml: cannot read the recipe: it is not UTF-8"),
    "a number out of range": (PANX, tags(TAGS), ["budget=0"], "budget: must be at least 1, not 0"),
    "a value of another type": (PANX, tags(TAGS), ["batch_size=many"], "batch_size: must be a whole number"),
    "a key as an option": (PANX, tags(TAGS), ["--budget", "10"], "--budget: recipe keys are written without dashes"),
    "a key of another tool": (PANX, tags(TAGS), ["lr=3e-4"], "unknown key 'lr' (did you mean 'learning_rate'?)"),
    "a language without brackets": (PANX, tags(TAGS), ["languages=en"], "languages: must be a list such as [en]"),
    "infinity": (PANX, tags(TAGS), ["clip=inf"], "clip: must be a finite number, not 'inf'"),
    "infinity in an option": (
        PANX,
        tags(TAGS),
        ["method=gradvac", "options.beta=nan"],
        "options of gradvac: beta: must be a finite number",
    ),
    "a seed of 65 bits": (PANX, tags(TAGS), ["seed=18446744073709551616"], "seed: must be at most 4294967295"),
    "a name too long for a file": (PANX, tags(TAGS), [f"path={'x' * 256}"], "path: has a name of more than 255 bytes"),
    "a name too long for a folder": (PANX, tags(TAGS), ["--out", "x" * 256], "--out: cannot write"),
    "no override": (PANX, tags(TAGS), ["budget"], "'budget' on the command line: write recipe keys as key=value"),
    "no such folder": (PANX, tags(TAGS), ["path=nowhere"], "path: nowhere is not a folder"),
    "a list for a key": ("? [a]\n: b\n", {}, [], "recipe.yaml:1: not valid YAML: found unhashable key"),
    "deep YAML": ("data: " + "[" * 5000, {}, [], "recipe.yaml: not valid YAML"),
    "a key twice": ("data: panx\ndata: panx\n", {}, [], "recipe.yaml:2: not valid YAML: key 'data' is given twice"),
    "control characters": (PANX, tags(TAGS), ['languages=["\\e[31m"]'], "no data for '\\x1b[31m'"),
}


def laid(folder: Path, recipe: str | bytes, files: Mapping[str, str | bytes], model: Path) -> None:
    """Write a recipe and its data."""
    for name, content in {"recipe.yaml": recipe, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data.replace(b"{model}", str(model).encode()))


@pytest.mark.parametrize(("recipe", "files", "overrides", "said"), ROWS.values(), ids=ROWS)
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: str | bytes,
    files: Mapping[str, str | bytes],
    overrides: list[str],
    said: str,
) -> None:
    laid(tmp_path, recipe, files, tiny_model)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["multitune", "train", "recipe.yaml", *overrides])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert said in told.err
    assert sorted(tmp_path.rglob("*")) == before


MARK = b"\xef\xbb\xbf"
HOSTILE = "text,label\none,../../x\ntwo,<img onerror=x>\n"
SOUND: dict[str, tuple[str | bytes, Mapping[str, str | bytes], list[str]]] = {
    "byte-order marks": (MARK + FOLDER.encode(), table(MARK + CSV.encode(), MARK + CSV.encode()), []),
    "line ends of Windows": (FOLDER.replace("\n", "\r\n"), table(CSV.replace("\n", "\r\n")), []),
    "bad records that may be skipped": (PANX, tags(f"{TAGS}Ana\n"), ["skip_bad=true"]),
    "labels like paths and code": (FOLDER, {f"data/{split}-aa.csv": HOSTILE for split in ("train", "dev", "test")}, []),
}


@pytest.mark.parametrize(("recipe", "files", "overrides"), SOUND.values(), ids=SOUND)
def test_what_is_odd_but_sound_is_read(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str | bytes,
    files: Mapping[str, str | bytes],
    overrides: list[str],
) -> None:
    laid(tmp_path, recipe, files, tiny_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["multitune", "data", "recipe.yaml", *overrides])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0

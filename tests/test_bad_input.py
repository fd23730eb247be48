"""Bad input as a user meets it on the command line: exit code 2, one line that names file and line, nothing written."""

import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from multitune.cli import main

PANX = "model: {model}\ndata: panx\npath: data\nlanguages: [aa]\nunseen: []\nbudget: 4\nmethod: mtl\n"
FOLDER = "model: {model}\ndata: folder\npath: data\nlanguages: [aa]\nunseen: []\nbudget: 4\nmethod: mtl\n"
SQUAD = "model: {model}\ndata: squad\npath: data\nbudget: 4\nmethod: mtl\n"
PARALLEL = "model: scratch:transformer\ndata: multi30k\npath: data\nlanguages: [de]\nunseen: []\nbudget: 4\n"
IMAGES = "model: scratch:convnet\ndata: images\npath: data\nbudget: 4\nmethod: mtl\n"

TAGS = "Ana\tB-PER\nsees\tO\n\n"
CSV = "text,label\none,x\ntwo,y\n"


def squad(answer: str, start: int) -> bytes:
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


ROWS: dict[str, tuple[str, Mapping[str, str | bytes], list[str], str]] = {
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
    "a label never seen in training": (
        FOLDER,
        table("text,label\none,../../x\n", "text,label\ntwo,../../x\n"),
        [],
        "data/test-aa.csv:2: label 'x' is never seen in training, which has ../../x",
    ),
    "a label column missing": (FOLDER, table("text,lable\none,x\n"), [], "data/train-aa.csv"),
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
    "a YAML bomb": ("a: &a [x]\nb: [*a, *a]\n", {}, [], "recipe.yaml:2: not valid YAML: aliases are not allowed"),
    "a YAML tag": ("data: !!python/object/apply:os.system [id]\n", {}, [], "recipe.yaml:1: not valid YAML"),
    "deep YAML": ("data: " + "[" * 5000, {}, [], "recipe.yaml: not valid YAML"),
    "a key twice": ("data: panx\ndata: panx\n", {}, [], "recipe.yaml:2: not valid YAML: key 'data' is given twice"),
    "control characters": (PANX, tags(TAGS), ['languages=["\\e[31m"]'], "no data for '\\x1b[31m'"),
}


@pytest.mark.parametrize(("recipe", "files", "overrides", "said"), ROWS.values(), ids=ROWS)
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: str,
    files: Mapping[str, str | bytes],
    overrides: list[str],
    said: str,
) -> None:
    for name, content in {"recipe.yaml": recipe.replace("{model}", str(tiny_model)), **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
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

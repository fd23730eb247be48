"""Data sets by name: counts of the real ones, splits that share nothing, other sets as unseen, a user's own files."""

import gzip
import json
import os
import subprocess
import sys
from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from builders import data_folder, real_data
from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus, Head
from multitune.data.fields import LABELLED_TEXT
from multitune.data.records.balance import balance
from multitune.data.sets import DATASETS, hub_sets
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.tasks import TASKS
from multitune.tasks.classification import OneLabel
from multitune.training.loading import load_corpus


def load(name: str, path: Path | Mapping[str, str] | None, **options: Any) -> Corpus:
    """A corpus without a single bad record."""
    bad = BadRecords()
    corpus = sets.load(name, bad, TASKS, path=str(path) if isinstance(path, Path) else path, **options)
    bad.refuse()
    return corpus


def counts(split: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    return {language: len(rows) for language, rows in split.items()}


def same(codes: str, count: int) -> dict[str, int]:
    return dict.fromkeys(codes.split(), count)


SIB = (
    "arb_Arab ben_Beng deu_Latn ell_Grek eng_Latn fin_Latn fra_Latn hin_Deva ind_Latn jav_Latn jpn_Jpan kaz_Cyrl "
    "kor_Hang mar_Deva mya_Mymr rus_Cyrl spa_Latn swh_Latn tel_Telu tgl_Latn tha_Thai tur_Latn vie_Latn yor_Latn "
    "zho_Hans"
)
TYDIQA_DEV = {"en": 440, "ko": 276, "sw": 499, "ar": 921, "bn": 113, "fi": 782, "id": 565, "ru": 812, "te": 669}
MLQA_DEV = {"ar": 517, "de": 512, "en": 1148, "es": 500, "hi": 507, "vi": 511, "zh": 504}
REAL: dict[str, tuple[dict[str, int], dict[str, int], dict[str, int]]] = {
    # train, dev (None: test is dev), test
    "tydiqa": ({"en": 3696, "ko": 1625, "sw": 2755}, {"en": 440, "ko": 276, "sw": 499}, TYDIQA_DEV),
    "xnli": (
        {"en": 2241},
        {"en": 249},
        same("en ar bg de el es fr hi ru sw th tr ur vi zh", 5010),
    ),
    "sib200": (same(SIB, 701), same(SIB, 99), same(SIB, 204)),
    "multi30k": (same("cs de fr", 29000), same("cs de fr", 1014), same("cs de fr", 1000)),
    "glue": (
        {"CoLA": 8551, "MRPC": 3667, "RTE": 2490, "SST-2": 67349, "STS-B": 5749},
        {"CoLA": 1043, "MRPC": 408, "RTE": 277, "SST-2": 872, "STS-B": 1500},
        {"CoLA": 1043, "MRPC": 408, "RTE": 277, "SST-2": 872, "STS-B": 1500},
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_counts(name: str) -> None:
    corpus = load(name, real_data(name))
    train, dev, test = REAL[name]
    assert (counts(corpus.train), counts(corpus.dev), counts(corpus.test)) == (train, dev, test)
    assert corpus.test_is_dev == (name in ("tydiqa", "glue"))


def test_real_parts_of_speech() -> None:
    """The sentences of each file are its blank lines and one more; the tags are the seventeen of UD."""
    folder = real_data("udpos")
    corpus = load("udpos", folder, languages=["mr", "ta", "te"], unseen=["vi", "hi"])
    assert corpus.task == "pos_tagging"
    assert len(corpus.labels) == 17
    for split, records in (("train", corpus.train), ("dev", corpus.dev), ("test", corpus.test)):
        for language, rows in records.items():
            text = (folder / f"{split}-{language}.tsv").read_text(encoding="utf-8")
            assert len(rows) == len(text.strip("\n").split("\n\n"))
            assert {tag for row in rows for tag in row["tags"]} <= set(corpus.labels)


def test_real_unseen_sets() -> None:
    paths = {name: str(real_data(name)) for name in ("tydiqa", "xquad", "mlqa")}
    corpus = load("tydiqa", paths, languages=["sw"], unseen=["fi", "xquad:de", "mlqa", "xquad:zh"])
    mlqa = {f"mlqa:{language}": count for language, count in MLQA_DEV.items()}
    expected = {"sw": 499, "fi": 782, "xquad:de": 1190, "xquad:zh": 1190} | mlqa
    assert counts(corpus.test) == expected
    crossed = load("tydiqa", paths, languages=["sw"], unseen=["mlqa:hi-en", "xquad:ar"])
    assert list(crossed.test) == ["sw", "mlqa:hi-en", "xquad:ar"]
    languages = {name: {record.get("mlqa_language") for record in rows} for name, rows in crossed.test.items()}
    assert languages == {"sw": {None}, "mlqa:hi-en": {"hi"}, "xquad:ar": {None}}


def test_real_quotes() -> None:
    """Quotes are text in GLUE and XNLI; SIB-200's texts are quoted, and no reader leaves its marks in them."""
    sib = load("sib200", real_data("sib200"), languages=["arb_Arab"])
    texts = [record["text"] for rows in (sib.train, sib.test) for record in rows["arb_Arab"]]
    assert sum('"' in text for text in texts) > 50
    assert not any('""' in text for text in texts)
    mrpc = load("glue", real_data("glue"), languages=["MRPC"])
    assert mrpc.train["MRPC"][0]["text"].startswith('Amrozi accused his brother , whom he called " the witness "')
    assert any(record["text_pair"].count('"') == 1 for record in mrpc.train["MRPC"])
    assert mrpc.heads == {}
    assert mrpc.labels == ("0", "1")


def test_real_heads() -> None:
    glue = load("glue", real_data("glue"), languages=["STS-B", "RTE"])
    assert glue.heads == {
        "STS-B": Head("regression", ()),
        "RTE": Head("classification", ("entailment", "not_entailment")),
    }
    scores = [record["label"] for record in glue.train["STS-B"]]
    assert (min(scores), max(scores)) == (0.0, 5.0)
    assert {row.label for row in balance(glue, TASKS)} == {"RTE: entailment", "RTE: not_entailment"}


def inputs(rows: Sequence[Any]) -> set[str]:
    return {repr(row.get("text", row.get("source", row.get("context", row.get("image"))))) for row in rows}


def test_real_xnli_trains_on_nothing_that_it_validates_or_reports() -> None:
    corpus = load("xnli", real_data("xnli"), languages=["en", "de"], unseen=[])
    for language in ("en", "de"):
        assert len(corpus.train[language]) + len(corpus.dev[language]) == 2490
        assert not inputs(corpus.train[language]) & inputs(corpus.dev[language])
        assert not inputs(corpus.train[language]) & inputs(corpus.test[language])
    premises = {language: corpus.dev[language][0]["text"] for language in ("en", "de")}
    lines = {k: (data_folder() / f"xnli/dev-{k}.tsv").read_text(encoding="utf-8").split("\n") for k in premises}
    rows = {k: next(n for n, line in enumerate(lines[k]) if line.startswith(text)) for k, text in premises.items()}
    assert rows["en"] == rows["de"], "the same premises validate in every language"


def test_real_images_are_divided_once_for_all() -> None:
    corpus = load("images", real_data("images"), languages=["mnist_6k", "omniglot_small1"])
    assert {task: len(head.labels) for task, head in corpus.heads.items()} == {"mnist_6k": 10, "omniglot_small1": 136}
    assert {head.task for head in corpus.heads.values()} == {"image_classification"}
    assert len(corpus.test["mnist_6k"]) == 1000
    total = [len(split["omniglot_small1"]) for split in (corpus.train, corpus.dev, corpus.test)]
    assert sum(total) == 2720
    assert 200 < total[1] < 350
    assert 200 < total[2] < 350


LINES = [{"sentence": f"word {n}", "intent": "ab"[n % 2]} for n in range(200)]


def written(folder: Path, files: Mapping[str, list[Any] | str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


COLUMNS = {"text": "sentence", "label": "intent"}
OWN: dict[str, tuple[dict[str, list[Any] | str], dict[str, Any], tuple[dict[str, int], ...], bool]] = {
    # files, options, sizes of train, dev and test, whether test is dev
    "three splits": (
        {"train-de.jsonl": LINES, "dev-de.jsonl": LINES[:5], "test-de.jsonl": LINES[:7], "test-fi.jsonl": LINES[:9]},
        {},
        ({"de": 200}, {"de": 5}, {"de": 7, "fi": 9}),
        False,
    ),
    "two splits": (
        {"train-de.jsonl": LINES, "dev-de.jsonl.gz": LINES[:5], "dev-fi.jsonl": LINES[:9]},
        {},
        ({"de": 200}, {"de": 5}, {"de": 5, "fi": 9}),
        True,
    ),
    "dev under another name": (
        {"train-de.jsonl": LINES, "validation-de.jsonl": LINES[:5], "test-de.jsonl": LINES[:7]},
        {},
        ({"de": 200}, {"de": 5}, {"de": 7}),
        False,
    ),
    "no dev files": (
        {"train-de.jsonl": LINES, "test-de.jsonl": LINES[:7], "test-fi.jsonl": LINES[:9]},
        {},
        ({"de": 178}, {"de": 22}, {"de": 7, "fi": 9}),
        False,
    ),
    "files of splits without a language": (
        {"train.jsonl": LINES, "test.jsonl": LINES[:7]},
        {},
        ({"own": 178}, {"own": 22}, {"own": 7}),
        False,
    ),
    "a table without quoting": (
        {"train-de.tsv": 'intent\tsentence\na\t"x\nb\ty\n', "dev-de.csv": "sentence,intent\nx,a\n"},
        {},
        ({"de": 2}, {"de": 1}, {"de": 1}),
        True,
    ),
    "beside what a Mac leaves": (
        {"de.jsonl": LINES, "._de.jsonl": "\0\5\x16\7", ".fi.jsonl": LINES},
        {},
        ({"de": 166}, {"de": 22}, {"de": 12}),
        False,
    ),
    "one file a language": (
        {"de.jsonl": LINES, "fi.jsonl": LINES},
        {"languages": ["de"], "unseen": ["fi"]},
        ({"de": 166}, {"de": 22}, {"de": 12, "fi": 200}),
        False,
    ),
}


@pytest.mark.parametrize(("files", "options", "sizes", "test_is_dev"), OWN.values(), ids=OWN)
def test_own_folder(
    tmp_path: Path,
    files: dict[str, list[Any] | str],
    options: dict[str, Any],
    sizes: tuple[dict[str, int], ...],
    test_is_dev: bool,
) -> None:
    corpus = load("folder", written(tmp_path / "own", files), columns=COLUMNS, **options)
    assert (counts(corpus.train), counts(corpus.dev), counts(corpus.test)) == sizes
    assert corpus.labels == ("a", "b")
    assert corpus.test_is_dev == test_is_dev


def test_texts_alone_are_of_masked_language_modelling(tmp_path: Path) -> None:
    corpus = load("folder", written(tmp_path, {"de.jsonl": LINES}), columns={"text": "sentence"})
    assert (corpus.task, corpus.labels) == ("masked_language_modelling", ())
    assert counts(corpus.train) == {"de": 166}


def test_the_recipe_says_which_kind_where_columns_are_those_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stars(OneLabel, ABC):
        fields = LABELLED_TEXT

    monkeypatch.setitem(TASKS, "stars", Stars)
    folder = written(tmp_path, {"de.jsonl": LINES})
    assert load("folder", folder, columns=COLUMNS).task == "classification"
    assert load("folder", folder, columns=COLUMNS, task="stars").task == "stars"
    assert load("folder", folder, columns={"text": "sentence"}, task="stars").task == "masked_language_modelling"


@pytest.mark.parametrize("task", ["tagging", "nonsense"])
def test_a_kind_that_the_data_are_not_of(tmp_path: Path, task: str) -> None:
    folder = written(tmp_path, {"de.jsonl": LINES})
    said = f"task: data: folder has no records of {task}; allowed: classification, causal_lm, masked_language_modelling"
    with pytest.raises(UserError, match=said):
        load_corpus(Recipe(data="folder", path=str(folder), columns=COLUMNS, task=task))


def test_data_of_a_kind_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "mine", lambda wanted, bad: Corpus("clasification", (), {}, {}, {}))
    with pytest.raises(UserError, match=r"data: mine is of an unknown kind of task .*did you mean 'classification'"):
        load_corpus(Recipe(data="mine"))


def test_data_sets_need_no_model() -> None:
    code = (
        "import sys, multitune.data.corpus, multitune.data.kind, multitune.data.sets; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_language_may_be_called_like_a_data_set(tmp_path: Path, tiny_panx: Path) -> None:
    files = {"train-de.jsonl": LINES, "dev-de.jsonl": LINES[:5], "dev-panx.jsonl": LINES[:7]}
    folder = written(tmp_path, files)
    assert list(load("folder", folder, columns=COLUMNS).test) == ["de", "panx"]
    assert list(load("folder", folder, columns=COLUMNS, unseen=["folder:panx"]).test) == ["de", "panx"]
    with pytest.raises(UserError, match="panx is of kind tagging"):
        load("folder", {"folder": str(folder), "panx": str(tiny_panx)}, columns=COLUMNS, unseen=["panx"])


SPLITS = {f"{split}-{code}.jsonl": LINES for split in ("train", "dev", "test") for code in ("de", "fi", "sw")}


@pytest.mark.parametrize("files", [{f"{code}.jsonl": LINES for code in ("de", "fi", "sw")}, SPLITS])
def test_what_is_named_unseen_is_not_trained_on(tmp_path: Path, files: dict[str, Any]) -> None:
    corpus = load("folder", written(tmp_path, files), columns=COLUMNS, unseen=["fi"])
    assert (list(corpus.train), list(corpus.dev), list(corpus.test)) == (["de", "sw"], ["de", "sw"], ["de", "sw", "fi"])
    assert len(corpus.test["fi"]) == len(LINES)
    with pytest.raises(UserError, match="unseen: names all languages that there are to train on: de, fi, sw"):
        load("folder", tmp_path, columns=COLUMNS, unseen=["sw", "de", "fi"])


def test_languages_of_two_sets_are_never_one(tmp_path: Path) -> None:
    files = {f"{split}-{code}.tsv": PAIRS for split in ("train", "dev", "test") for code in ("de", "xnli:de")}
    pawsx = written(tmp_path / "pawsx", dict(files))
    xnli = written(tmp_path / "xnli", {"test-de.tsv": PAIRS})
    with pytest.raises(UserError, match="data: pawsx has a language 'xnli:de' of its own, and xnli one of that name"):
        load("pawsx", {"pawsx": str(pawsx), "xnli": str(xnli)}, languages=["xnli:de"], unseen=["xnli"])


def test_one_file_is_divided_by_its_texts(tmp_path: Path) -> None:
    """Equal texts are in one split, whatever else the file holds and wherever it lies."""
    first = load("folder", written(tmp_path / "a", {"de.jsonl": LINES + LINES}), columns=COLUMNS)
    second = load("folder", written(tmp_path / "b", {"de.jsonl": LINES[100:]}), columns=COLUMNS)
    for split in ("train", "dev", "test"):
        mine = inputs(getattr(first, split)["de"])
        assert inputs(getattr(second, split)["de"]) == mine & inputs([{"text": f"word {n}"} for n in range(100, 200)])
        assert all(
            not mine & inputs(getattr(first, other)["de"]) for other in ("train", "dev", "test") if other != split
        )


A_TENTH = "has no dev split: a tenth of train, chosen by hash, validates"


@pytest.mark.parametrize("options", [{}, {"test_only": True}, {"languages": ()}], ids=["train", "score", "unseen"])
def test_without_dev_a_tenth_of_train_validates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    tested = [{"sentence": f"tested {n}", "intent": "ab"[n % 2]} for n in range(20)]
    folder = written(tmp_path, {"train-de.jsonl": LINES + LINES[::-1], "test-de.jsonl": tested})
    corpus = load("folder", folder, columns=COLUMNS, **options)
    assert inputs(corpus.test["de"]) == {repr(row["sentence"]) for row in tested}
    assert caplog.text.count(A_TENTH) == (not options)
    if options:
        assert not corpus.train
        return
    train, dev = inputs(corpus.train["de"]), inputs(corpus.dev["de"])
    assert not train & dev
    assert not (train | dev) & inputs(corpus.test["de"])
    assert inputs(load("folder", written(tmp_path / "one", {"de.jsonl": LINES}), columns=COLUMNS).dev["de"]) == dev
    assert len(corpus.train["de"]) + len(corpus.dev["de"]) == 2 * len(LINES)
    assert not corpus.test_is_dev


def test_what_is_trained_on_and_scored_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By language and split; not across languages, not where the texts differ, not where nothing is trained on."""
    new = [{"sentence": f"new {n}", "intent": "a"} for n in range(9)]
    other_label = [{"sentence": row["sentence"], "intent": "c"} for row in LINES[:3]]
    files: dict[str, list[Any] | str] = {
        **{f"train-{code}.jsonl": LINES for code in ("de", "fi", "sw")},
        "train-ar.jsonl": [{"sentence": "another", "intent": "b"}],
        "test-de.jsonl": new + other_label,
        "test-fi.jsonl": LINES[:1],
        **dict.fromkeys(("test-ar.jsonl", "test-en.jsonl"), LINES),
        **dict.fromkeys(("test-sw.jsonl", "dev-ar.jsonl", "dev-de.jsonl", "dev-fi.jsonl"), new),
        "dev-sw.jsonl": LINES[:2] + LINES[:2] + new,
    }
    folder = written(tmp_path, files)
    load("folder", folder, columns=COLUMNS)
    told, few = caplog.messages
    assert few.endswith("fi 1")
    assert told.endswith(
        "word for word, so that scores on them say little: test: de 3 of 12, fi 1 of 1; dev: sw 4 of 13"
    )
    caplog.clear()
    for options in ({"test_only": True}, {"languages": ("ar",)}, {"languages": ()}):
        load("folder", folder, columns=COLUMNS, **options)
    assert not [each for each in caplog.messages if "word for word" in each]


def test_a_divided_file_has_no_copies_and_published_sets_are_not_searched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load("folder", written(tmp_path / "own", {"de.jsonl": LINES + LINES}), columns=COLUMNS)
    load("pawsx", written(tmp_path / "pawsx", {f"{split}-de.tsv": PARAPHRASES for split in ("train", "dev", "test")}))
    assert not caplog.messages


PAIRS = "a\tb\tneutral\nc\td\tentailment\n"
PARAPHRASES = "a\tb\t0\nc\td\t1\n"
MISTAKES: dict[str, tuple[str, dict[str, Any], dict[str, list[Any] | str], str]] = {
    # data set, options, files, what is said
    "no folder": ("multi30k", {"path": None}, {}, "path: is missing; data: multi30k needs the folder with train.en.gz"),
    "not a folder": ("squad", {"path": Path("nowhere")}, {}, "nowhere is not a folder; data: squad needs"),
    "empty folder": ("udpos", {}, {}, "has no train-xx.tsv, dev-xx.tsv, test-xx.tsv"),
    "an empty folder of one's own": (
        "folder",
        {},
        {},
        "has no train-xx, dev-xx, test-xx or train-xx, dev-xx or xx; their names end in .jsonl, .csv, .tsv, .conll, ",
    ),
    "a language that has no file": (
        "folder",
        {"unseen": ["sw"], "columns": {"text": "text", "label": "label"}},
        {f"{split}-de.csv": "text,label\na,b\n" for split in ("train", "dev", "test")},
        r"test-sw.csv\); there is some for: de",
    ),
    "nothing to train on": ("xquad", {}, {"xquad.de.json": "{}"}, "data: xquad has no training data"),
    "a language twice": ("panx", {"languages": ["de"], "unseen": ["de"]}, {}, "'de' is named 2 times"),
    "a folder for no set": ("panx", {"path": {"panx": "x", "xnli": "y"}}, {}, "'xnli' is a folder for no data set"),
    "no such task": ("glue", {"languages": ["XYZ"]}, {}, "has no task 'XYZ'; it has CoLA"),
    "an unseen task": ("glue", {"unseen": ["RTE"]}, {}, "none can be unseen"),
    "two files of a language": (
        "folder",
        {},
        {"train-de.jsonl": LINES, "train-de.csv": "", "dev-de.jsonl": LINES},
        "a second file for 'de'",
    ),
    "too few to divide": (
        "folder",
        {"columns": COLUMNS},
        {"de.jsonl": LINES[:1], "fi.jsonl": LINES, "sw.jsonl": LINES[:2]},
        r"too few records to divide .*: de \(1\), sw \(2\); .* unseen: \[de, sw\]",
    ),
    "an empty file to divide": (
        "folder",
        {"columns": COLUMNS},
        {"de.jsonl": LINES, "fi.jsonl": LINES[:1], "sw.jsonl": ""},
        r"sw\.jsonl: holds no record",
    ),
    "no dev file and no test file": (
        "folder",
        {"columns": COLUMNS},
        {"train-de.jsonl": LINES, "test-fi.jsonl": LINES, "dev-fi.jsonl": LINES},
        "no data for 'de' .*dev-de.jsonl",
    ),
    "two names for dev": (
        "folder",
        {"columns": COLUMNS},
        {"train-de.jsonl": LINES, "val-de.jsonl": LINES, "dev-de.jsonl": LINES},
        "has files dev-xx and val-xx, both for dev",
    ),
    "an unseen set without a folder": (
        "pawsx",
        {"unseen": ["sib200"]},
        {"train-de.tsv": PARAPHRASES, "dev-de.tsv": PARAPHRASES, "test-de.tsv": PARAPHRASES},
        "path: is missing; data: sib200",
    ),
    "no images": ("images", {}, {"x.txt": "a"}, "has no zip or npz file of images"),
    "columns of a set that has its own": ("panx", {"columns": COLUMNS}, {}, "columns: only the tables of data: folder"),
    "a split under another name": (
        "folder",
        {"columns": COLUMNS},
        {"de_train.jsonl": LINES, "de_test.jsonl": LINES},
        "a file 'de_test', which is not a language",
    ),
    "no train file": (
        "folder",
        {"columns": COLUMNS},
        {"dev-de.jsonl": LINES[:3], "test-de.jsonl": LINES[:3]},
        "a file 'dev-de', which is not a language",
    ),
    "columns of no kind": (
        "folder",
        {"columns": {"txt": "a"}},
        {"de.jsonl": LINES},
        r"no kind of task has the fields txt; allowed: messages \(causal_lm\); prompt, completion \(causal_lm\); ",
    ),
    "two tasks of one name": (
        "images",
        {},
        {"a.npz": "", "b.zip": "", "a.zip": ""},
        r"a\.(npz|zip) and a\.(npz|zip) are both the task 'a'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "options", "files", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(
    tmp_path: Path, name: str, options: dict[str, Any], files: dict[str, list[Any] | str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load(name, **{"path": written(tmp_path, files)} | options)


def test_a_link_to_nowhere_is_no_language_less(tmp_path: Path) -> None:
    files = {f"{split}-{code}.jsonl": LINES[:9] for split in ("train", "dev", "test") for code in ("de", "fi")}
    written(tmp_path, files)
    (tmp_path / "train-fi.jsonl").unlink()
    (tmp_path / "train-fi.jsonl").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"train-fi\.jsonl: cannot be read: No such file or directory"):
        load("folder", tmp_path, columns=COLUMNS)


def test_a_language_whose_file_has_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    for name in (b"de", b"\xff"):
        (tmp_path / f"{os.fsdecode(name)}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    with pytest.raises(UserError, match=r"languages: '\\udcff' is not UTF-8, so that results cannot name it; rename"):
        load("folder", tmp_path, columns=COLUMNS)
    assert set(load("folder", tmp_path, columns=COLUMNS, languages=["de"]).test) == {"de"}


def test_an_unseen_set_of_another_kind(tmp_path: Path, tiny_panx: Path) -> None:
    xnli = written(tmp_path / "xnli", {"test-de.tsv": PAIRS})
    with pytest.raises(UserError, match="xnli is of kind classification, the model of data: panx of kind tagging"):
        load("panx", {"panx": str(tiny_panx), "xnli": str(xnli)}, unseen=["xnli"])


def test_an_unseen_set_with_labels_that_are_none_of_its_own(tmp_path: Path) -> None:
    pawsx = written(tmp_path / "pawsx", {f"{split}-de.tsv": PARAPHRASES for split in ("train", "dev", "test")})
    xnli = written(tmp_path / "xnli", {"test-de.tsv": "a\tb\n\nc\td\n", "test.labels.txt": "neutral\n\nmaybe\n"})
    with pytest.raises(UserError, match=r"test-de\.tsv:3: label 'maybe' is none of data: xnli, which has contr"):
        load("pawsx", {"pawsx": str(pawsx), "xnli": str(xnli)}, unseen=["xnli:de"])


def test_labels_in_no_file(tmp_path: Path) -> None:
    files = {f"{split}-de.tsv": PAIRS for split in ("train", "dev")} | {"test-de.tsv": "a\tb\n"}
    with pytest.raises(UserError, match=r"test-de\.tsv:1: has no label"):
        load("xnli", written(tmp_path, files))


def test_published_paws_x(tmp_path: Path) -> None:
    text = 'id\tsentence1\tsentence2\tlabel\n1\t"a\tb\t0\n2\tc\td"\t1\n'
    for language in ("en", "de"):
        written(tmp_path / language, {"dev_2k.tsv": text, "test_2k.tsv": text})
    written(tmp_path / "en", {"train.tsv": text})
    corpus = load("pawsx", tmp_path)
    assert (counts(corpus.train), counts(corpus.test)) == ({"en": 2}, {"en": 2, "de": 2})
    assert corpus.train["en"][0] == {"text": '"a', "text_pair": "b", "label": "0"}


def bad_recipe(tmp_path: Path, **keys: Any) -> Recipe:
    lines = [*LINES, {"sentence": "no intent"}]
    files = {"train-de.jsonl": lines, "dev-de.jsonl": LINES, "dev-fi.jsonl": [*LINES, {"sentence": "x", "intent": "c"}]}
    written(tmp_path, files)
    (tmp_path / "dev-fi.jsonl").write_bytes((tmp_path / "dev-fi.jsonl").read_bytes() + b"\xff\n")
    return Recipe(data="folder", path=str(tmp_path), columns=COLUMNS, **keys)


def test_bad_records_stop_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-de\.jsonl:201: no key 'intent'; .* \(1 more bad record; "):
        load_corpus(bad_recipe(tmp_path))


def test_skip_bad_counts_them_by_language(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = load_corpus(bad_recipe(tmp_path, skip_bad=True, dev_limit=None))
    assert corpus.skipped == {"de": 1, "fi": 1}
    assert (counts(corpus.train), counts(corpus.test)) == ({"de": 200}, {"de": 200, "fi": 201})
    assert "2 bad records are left out: de 1, fi 1" in caplog.text


def test_skip_bad_leaves_something(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="skip_bad: leaves no good record of de, fi"):
        load_corpus(bad_recipe(tmp_path, skip_bad=True).model_copy(update={"columns": {"text": "a", "label": "b"}}))
    assert not [each for each in caplog.messages if "few test records" in each]


@pytest.mark.parametrize("skip_bad", [True, False])
def test_a_language_without_a_good_record_is_named_with_the_key_that_leaves_it_out(
    tmp_path: Path, *, skip_bad: bool
) -> None:
    unlabelled = [{"sentence": line["sentence"], "intent": ""} for line in LINES]
    written(tmp_path, {"de.jsonl": LINES, "fi.jsonl": LINES, "pl.jsonl": unlabelled})
    recipe = Recipe(data="folder", path=str(tmp_path), columns=COLUMNS, skip_bad=skip_bad)
    said = r"no good record of pl.*, languages: \[de, fi\] leaves pl out"
    with pytest.raises(UserError, match=said):
        load_corpus(recipe)
    assert counts(load_corpus(recipe.model_copy(update={"languages": ("de", "fi")})).test).keys() == {"de", "fi"}
    with pytest.raises(UserError, match=r"no good record of pl.* lists (them|the bad ones)\)$"):
        load_corpus(recipe.model_copy(update={"languages": ("pl",)}))
    unseen = recipe.model_copy(update={"languages": ("de",), "unseen": ("fi", "pl")})
    with pytest.raises(UserError, match=r"no good record of pl.*, unseen: \[fi\] leaves pl out"):
        load_corpus(unseen)


@pytest.mark.parametrize(
    ("sizes", "few"),
    [((19, 1), ""), ((20, 1), "fi 1"), ((99, 5), ""), ((100, 5), "fi 5"), ((120, 6), ""), ((1, 1), "")],
)
def test_languages_with_few_test_records_beside_many_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sizes: tuple[int, int], few: str
) -> None:
    test = {f"test-{code}.jsonl": LINES[:size] for code, size in zip(("de", "fi"), sizes, strict=True)}
    written(tmp_path, {"train-de.jsonl": LINES[121:], "dev-de.jsonl": LINES[120:121], **test})
    load_corpus(Recipe(data="folder", path=str(tmp_path), columns=COLUMNS))
    said = f"few test records, which averages over languages count like the {sizes[0]} of de: {few}"
    assert caplog.messages == ([said] if few else [])


def test_real_captions_say_what_they_are_translated_into() -> None:
    record = load("multi30k", real_data("multi30k"), languages=["fr"]).test["fr"][0]
    assert set(record) == {"source", "target", "target_language"}
    assert record["target_language"] == "fr"


def test_every_set_has_a_name() -> None:
    others = {"assistant", "folder", "images", "mlqa", "panx", "pawsx", "squad", "udpos", "xquad"}
    assert set(REAL) | others | set(hub_sets.SETS) == set(DATASETS)


TREEBANK = "# sent_id = 1\n1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n" + "".join(
    f"{n}\t{word}\t_\t{upos}\tX{n}\t_\t_\t_\t_\t_\n"
    for n, (word, upos) in enumerate((("de", "ADP"), ("el", "DET"), ("mar", "NOUN")), 1)
)


@pytest.mark.parametrize("name", ["{split}-es.conllu", "es_toy-ud-{split}.conllu"])
def test_treebanks_as_published(tmp_path: Path, name: str) -> None:
    files = {name.format(split=split): f"{TREEBANK}\n{TREEBANK}" for split in ("train", "dev", "test")}
    corpus = load("udpos", written(tmp_path, files))
    assert list(corpus.train) == ["es"]
    assert list(corpus.train["es"]) == [{"tokens": ["de", "el", "mar"], "tags": ["ADP", "DET", "NOUN"]}] * 2


def test_several_treebanks_of_a_language_are_joined(tmp_path: Path) -> None:
    files = {f"es_{name}-ud-{split}.conllu": TREEBANK for name in "ab" for split in ("train", "dev", "test")}
    assert len(load("udpos", written(tmp_path, files)).train["es"]) == 2


def test_any_column_of_a_treebank(tmp_path: Path) -> None:
    files = {f"{split}-es.conllu": TREEBANK for split in ("train", "dev", "test")}
    corpus = load("folder", written(tmp_path, files), columns={"tokens": "FORM", "pos": "xpos"})
    assert list(corpus.train["es"]) == [{"tokens": ["de", "el", "mar"], "tags": ["X1", "X2", "X3"]}]


@pytest.mark.parametrize("name", ["xnli", "pawsx"])
def test_a_header_line_is_a_bad_record_where_labels_are_known(tmp_path: Path, name: str) -> None:
    lines = PAIRS if name == "xnli" else PARAPHRASES
    files = {f"{split}-de.tsv": f"premise\thypo\tlabel\n{lines}" for split in ("train", "dev", "test")}
    with pytest.raises(UserError, match=r"train-de\.tsv:1: label 'label'"):
        load(name, written(tmp_path, files))


def test_the_prefix_of_the_language_is_taken_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "de:Anna\tB-PER\nde:lebt\tO\n\nde:a\tO\n:\tO\n\n"
    corpus = load("panx", written(tmp_path, {"train-de.tsv": text, "dev-de.tsv": text}))
    assert [record["tokens"] for record in corpus.train["de"]] == [["Anna", "lebt"], ["de:a", ":"]]
    assert "the prefix de: is taken off all tokens of 1 sentences" in caplog.text

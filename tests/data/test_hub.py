"""Data sets of the Hub: parquet files with its schema, read from a folder, from its cache and from a small server."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import real_data
from corpora import load
from multitune.data import sets, squad
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus, Head
from multitune.data.records.texts import unlabelled
from multitune.data.sets import DATASETS, hub_sets, sources
from multitune.errors import UserError
from multitune.tasks import TASKS
from small_hub import at_the_hubs_place

datasets = pytest.importorskip("datasets", reason="needs the package datasets (multitune[dev])")
datasets.disable_progress_bars()
STRING, STRINGS = datasets.Value("string"), datasets.List(datasets.Value("string"))
ENTITIES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
UPOS = sources.UPOS_TAGS.split()
ANSWERS = {"answer_start": datasets.List(datasets.Value("int32")), "text": STRINGS}


def classes(*names: str) -> Any:
    return datasets.ClassLabel(names=list(names))


INFERENCE = {"premise": STRING, "hypothesis": STRING, "label": classes("entailment", "neutral", "contradiction")}
SCHEMAS: dict[str, dict[str, Any]] = {
    "PAN-X": {"tokens": STRINGS, "ner_tags": datasets.List(classes(*ENTITIES)), "langs": STRINGS},
    "udpos": {"tokens": STRINGS, "pos_tags": datasets.List(classes(*UPOS))},
    "questions": {"id": STRING, "title": STRING, "context": STRING, "question": STRING, "answers": ANSWERS},
    "inference": INFERENCE,
    "PAWS-X": {"sentence1": STRING, "sentence2": STRING, "label": STRING},
    "de-en": {"translation": datasets.Translation(languages=("de", "en"))},
    "text": {"text": STRING},
    "cola": {"sentence": STRING, "label": classes("unacceptable", "acceptable"), "idx": datasets.Value("int32")},
    "mrpc": {"sentence1": STRING, "sentence2": STRING, "label": classes("not_equivalent", "equivalent")},
    "qnli": {"question": STRING, "sentence": STRING, "label": classes("entailment", "not_entailment")},
    "qqp": {"question1": STRING, "question2": STRING, "label": classes("not_duplicate", "duplicate")},
    "rte": {"sentence1": STRING, "sentence2": STRING, "label": classes("entailment", "not_entailment")},
    "sst2": {"sentence": STRING, "label": classes("negative", "positive")},
    "stsb": {"sentence1": STRING, "sentence2": STRING, "label": datasets.Value("float32")},
    "image": {"image": datasets.Image(), "label": classes("cat", "dog")},
    "cifar100": {"img": datasets.Image(), "fine_label": classes("cat", "dog"), "coarse_label": classes("animal")},
    "tiny": {"image": datasets.Image(), "label": classes(*(f"n{number:03}" for number in range(200)))},
}


def write(folder: Path, schema: str, rows: list[dict[str, Any]], *names: str) -> Path:
    """The folder, with the rows in files of these names."""
    table = datasets.Dataset.from_list(rows, features=datasets.Features(SCHEMAS[schema]))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / name)
    return folder


def shard(config: str, *splits: str) -> list[str]:
    return [f"{config}/{split}-00000-of-00001.parquet" for split in splits]


def png(seed: int, size: tuple[int, int] = (6, 4)) -> dict[str, Any]:
    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


SENTENCE = {"tokens": ["Anna", "in", "Oslo"], "ner_tags": [1, 0, 5], "langs": ["de"] * 3}
QUESTION = {"id": "7", "title": "", "context": "It is 12 km.", "question": "How far?"}
QUESTION["answers"] = {"text": ["12"], "answer_start": [6]}  # type: ignore[assignment]
ASKED = {name: QUESTION[name] for name in ("id", "context", "question", "answers")}
PAIR = {"sentence1": "a", "sentence2": "b", "label": 1}
TRAIN_DEV = ("train", "validation")
TEXTS: dict[str, tuple[str, dict[str, Any], list[str], str, Any]] = {
    # set: schema, a row, its files, the language, the record
    "panx": (
        "PAN-X",
        SENTENCE,
        shard("PAN-X.de", *TRAIN_DEV),
        "de",
        {"tokens": ["Anna", "in", "Oslo"], "tags": ["B-PER", "O", "B-LOC"]},
    ),
    "wikiann": (
        "PAN-X",
        SENTENCE,
        shard("zh-yue", *TRAIN_DEV),
        "zh-yue",
        {"tokens": ["Anna", "in", "Oslo"], "tags": ["B-PER", "O", "B-LOC"]},
    ),
    "udpos": (
        "udpos",
        {"tokens": ["so", "\u200e"], "pos_tags": [2, 16]},
        shard("udpos.Finnish", *TRAIN_DEV, "test"),
        "fi",
        {"tokens": ["so", "\u200e"], "tags": ["ADV", "X"]},
    ),
    "tydiqa": (
        "questions",
        QUESTION | {"id": "swahili-7"},
        shard("secondary_task", *TRAIN_DEV),
        "sw",
        ASKED | {"id": "swahili-7"},
    ),
    "squad": ("questions", QUESTION, shard("plain_text", *TRAIN_DEV), "en", ASKED),
    "squad_v2": (
        "questions",
        QUESTION | {"answers": {"text": [], "answer_start": []}},
        shard("squad_v2", *TRAIN_DEV),
        "en",
        ASKED | {"answers": {"text": [], "answer_start": []}},
    ),
    "xquad": ("questions", QUESTION, shard("XQuAD.el", "validation"), "el", ASKED),
    "mlqa": ("questions", QUESTION, shard("MLQA.hi.en", "validation"), "hi-en", ASKED | {"mlqa_language": "hi"}),
    "mnli": (
        "inference",
        {"premise": "a", "hypothesis": "b", "label": 1},
        shard("mnli", "train", "validation_matched"),
        "en",
        {"text": "a", "text_pair": "b", "label": "neutral"},
    ),
    "xnli": (
        "inference",
        {"premise": "a", "hypothesis": "b", "label": 2},
        shard("sw", *TRAIN_DEV, "test"),
        "sw",
        {"text": "a", "text_pair": "b", "label": "contradiction"},
    ),
    "pawsx": (
        "PAWS-X",
        PAIR | {"label": "1"},
        shard("PAWS-X.ja", *TRAIN_DEV, "test"),
        "ja",
        {"text": "a", "text_pair": "b", "label": "1"},
    ),
    "opus100": (
        "de-en",
        {"translation": {"de": "Hallo", "en": "Hello"}},
        shard("de-en", *TRAIN_DEV, "test"),
        "de",
        {"source": "Hello", "target": "Hallo", "target_language": "de"},
    ),
}


def plain(corpus: Corpus) -> Corpus:
    """The same with its records in lists, which can be compared."""
    splits = (corpus.train, corpus.dev, corpus.test)
    train, dev, test = ({code: list(rows) for code, rows in split.items()} for split in splits)
    return replace(corpus, train=train, dev=dev, test=test)


@pytest.mark.parametrize("name", TEXTS)
def test_texts(tmp_path: Path, name: str) -> None:
    schema, row, files, language, record = TEXTS[name]
    write(tmp_path, schema, [row, row], *files)
    trains = hub_sets.SETS[name].layout.train is not None
    codes = {"languages": [language], "unseen": []} if trains else {"languages": [], "unseen": [language]}
    corpus = load(name, tmp_path, **codes)
    assert {code: list(rows) for code, rows in corpus.test.items()} == {language: [record, record]}
    assert {code: list(rows) for code, rows in corpus.train.items()} == ({language: [record, record]} if trains else {})
    assert corpus.test_is_dev == (len(files) < 3 and name != "xquad")


GLUE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "CoLA": ("cola", {"sentence": "a", "label": 1, "idx": 0}, {"text": "a", "label": "1"}),
    "MNLI": (
        "inference",
        {"premise": "a", "hypothesis": "b", "label": 0},
        {"text": "a", "text_pair": "b", "label": "entailment"},
    ),
    "MRPC": ("mrpc", PAIR, {"text": "a", "text_pair": "b", "label": "1"}),
    "QNLI": (
        "qnli",
        {"question": "a", "sentence": "b", "label": 1},
        {"text": "a", "text_pair": "b", "label": "not_entailment"},
    ),
    "QQP": (
        "qqp",
        {"question1": "a", "question2": "b", "label": 0},
        {"text": "a", "text_pair": "b", "label": "0"},
    ),
    "RTE": ("rte", PAIR, {"text": "a", "text_pair": "b", "label": "not_entailment"}),
    "SST-2": ("sst2", {"sentence": "a ", "label": 0}, {"text": "a ", "label": "0"}),
    "STS-B": ("stsb", PAIR | {"label": 2.5}, {"text": "a", "text_pair": "b", "label": 2.5}),
}


def glue_copy(folder: Path) -> Path:
    for task, (schema, row, _) in GLUE.items():
        config = {"MNLI": "mnli"}.get(task, schema)
        dev = "validation_matched" if task == "MNLI" else "validation"
        write(folder, schema, [row, row], *shard(config, "train", dev))
    return folder


def test_glue(tmp_path: Path) -> None:
    corpus = load("glue", glue_copy(tmp_path))
    assert list(corpus.heads) == list(hub_sets.GLUE) == list(GLUE)
    assert corpus.test_is_dev
    for task, (_, _, record) in GLUE.items():
        assert list(corpus.train[task]) == list(corpus.test[task]) == [record, record]
    assert corpus.heads["STS-B"] == Head("regression", ())


def test_glue_of_a_folder_is_what_the_folder_has(tmp_path: Path) -> None:
    """Three tasks in the layout of the original TSVs, one of them with the columns of MNLI's thirteen that matter."""
    mnli = "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tentailment\n"
    files = {
        "MNLI/train.tsv": mnli,
        "MNLI/dev_matched.tsv": mnli,
        "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\ta\tb\tnot_entailment\n",
        "QQP/train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n",
    }
    for name, text in {**files, "QNLI/dev.tsv": files["QNLI/train.tsv"], "QQP/dev.tsv": files["QQP/train.tsv"]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    corpus = load("glue", tmp_path)
    assert list(corpus.heads) == ["MNLI", "QNLI", "QQP"]
    assert {task: rows[0] for task, rows in corpus.train.items()} == {task: GLUE[task][2] for task in corpus.heads}


def test_lines_of_common_crawl(tmp_path: Path) -> None:
    """Blank lines are no texts; one file holds all splits."""
    rows = [{"text": f"line {number}" if number % 5 else ""} for number in range(500)]
    write(tmp_path, "text", rows, "sw/train/0000.parquet", "yo/train/0000.parquet")
    corpus = load("cc100", tmp_path, languages=["sw"], unseen=["yo"])
    assert corpus.task == "masked_language_modelling"
    assert plain(unlabelled(corpus, TASKS, corpus.task)) == plain(corpus)
    splits = [{record["text"] for record in split["sw"]} for split in (corpus.train, corpus.dev, corpus.test)]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len(corpus.test["yo"]) == 400
    assert min(map(len, splits)) > 20


IMAGE_SETS: dict[str, tuple[str, str, list[str]]] = {
    "cifar100": ("cifar100", "cifar100", ["train", "test"]),
    "fashion-mnist": ("image", "fashion_mnist", ["train", "test"]),
    "svhn": ("image", "cropped_digits", ["train", "test"]),
    "stanford-dogs": ("image", "data", ["train", "test"]),
    "stanford-cars": ("image", "data", ["train", "test"]),
    "cub-200": ("image", "data", ["train", "test"]),
    "fgvc-aircraft": ("image", "data", ["train", "val", "test"]),
}


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_images(tmp_path: Path, name: str) -> None:
    schema, config, splits = IMAGE_SETS[name]
    label, image = ("fine_label", "img") if schema == "cifar100" else ("label", "image")
    more = {"coarse_label": 0} if schema == "cifar100" else {}
    rows = [{image: png(number), label: number % 2} | more for number in range(80)]
    corpus = load(name, write(tmp_path, schema, rows, *shard(config, *splits)))
    assert corpus.labels == ("cat", "dog")
    assert len(corpus.test[name]) == 80
    assert corpus.test[name][0]["image"].shape == (4, 6, 3)
    sizes = len(corpus.train[name]), len(corpus.dev[name])
    assert sizes == (80, 80) if "val" in splits else sum(sizes) == 80 and min(sizes) > 0


def test_halves_of_tiny_imagenet(tmp_path: Path) -> None:
    rows = [{"image": png(number), "label": number % 200} for number in range(1000)]
    folder = write(tmp_path, "tiny", rows, *shard("data", "train", "valid"))
    halves = [load(f"tiny-imagenet-{half}", folder) for half in (1, 2)]
    labels = [{record["label"] for rows in corpus.train.values() for record in rows} for corpus in halves]
    assert max(labels[0]) < "n100" <= min(labels[1])
    assert [len(rows) for corpus in halves for rows in corpus.test.values()] == [500, 500]


def test_photographs_are_reduced(tmp_path: Path) -> None:
    rows = [{"image": png(number, (396, 264)), "label": number % 2} for number in range(30)]
    corpus = load("svhn", write(tmp_path, "image", rows, *shard("cropped_digits", "train", "test")))
    assert corpus.test["svhn"][0]["image"].shape == (256, 384, 3)


def test_every_name_has_a_row_above() -> None:
    images = {*IMAGE_SETS, "tiny-imagenet", "tiny-imagenet-1", "tiny-imagenet-2"}
    assert {*TEXTS, *images, "cc100"} == set(hub_sets.SETS)
    assert set(hub_sets.SETS) <= set(DATASETS)
    for name in set(sources.FOLDERS) & set(hub_sets.SETS):
        assert {layout.task for layout in sources.FOLDERS[name]} == {hub_sets.SETS[name].layout.task}


def tagged(record: Mapping[str, Any], column: str, names: list[str]) -> dict[str, Any]:
    more = {"langs": ["xx"] * len(record["tokens"])} if column == "ner_tags" else {}
    return {"tokens": record["tokens"], column: [names.index(tag) for tag in record["tags"]]} | more


@pytest.mark.check
def test_real_entities(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Chinese has I- tags that open an entity: a warning in either case, as it is not trained on."""
    real = load("panx", real_data("panx"), languages=["sw", "yo"], unseen=["zh"])
    for split, rows in (("train", real.train), ("validation", real.test)):
        for code, records in rows.items():
            table = [tagged(record, "ner_tags", ENTITIES) for record in records]
            write(tmp_path, "PAN-X", table, *shard(f"PAN-X.{code}", split))
    assert plain(load("panx", tmp_path, languages=["sw", "yo"], unseen=["zh"])) == plain(real)
    assert caplog.text.count("476 I- tags open an entity") == 2


def test_real_parts_of_speech(tmp_path: Path) -> None:
    real = load("udpos", real_data("udpos"), languages=["mr"], unseen=[])
    for split, rows in (("train", real.train), ("validation", real.dev), ("test", real.test)):
        write(
            tmp_path,
            "udpos",
            [tagged(record, "pos_tags", UPOS) for record in rows["mr"]],
            *shard("udpos.Marathi", split),
        )
    assert plain(load("udpos", tmp_path, languages=["mr"], unseen=[])) == plain(real)


def stripped(record: Mapping[str, Any]) -> dict[str, Any]:
    """As the Hub's copies are: without blanks at the ends of the context and the answers, the offsets as they were."""
    answers = {"text": [text.strip() for text in record["answers"]["text"]]}
    answers["answer_start"] = record["answers"]["answer_start"]
    return {"title": "", "id": record["id"], "answers": answers} | {
        name: record[name].strip() for name in ("context", "question")
    }


def where_the_answers_are(record: Mapping[str, Any]) -> tuple[str, list[int]]:
    """The context without blanks at its ends, and the offsets in it of the answers without theirs."""
    texts, starts = record["answers"]["text"], record["answers"]["answer_start"]
    blanks = len(record["context"]) - len(record["context"].lstrip())
    begins = [start - blanks + len(text) - len(text.lstrip()) for text, start in zip(texts, starts, strict=True)]
    return record["context"].strip(), begins


def test_real_questions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    real = load("tydiqa", real_data("tydiqa"), languages=["sw", "en"], unseen=["ar"])
    for split, rows in (("train", real.train), ("validation", real.test)):
        table = [stripped(record) for records in rows.values() for record in records]
        write(tmp_path, "questions", table, *shard("secondary_task", split))
    copy = load("tydiqa", tmp_path, languages=["sw", "en"], unseen=["ar"])
    for rows, true in ((copy.train, real.train), (copy.test, real.test)):
        for code, records in true.items():
            found = [(record["context"], record["answers"]["answer_start"]) for record in rows[code]]
            assert found == [where_the_answers_are(record) for record in records]
    assert "answers of 478 questions of sw moved" in caplog.text
    assert "answers of 413 questions of ar moved" in caplog.text


def test_real_inference(tmp_path: Path) -> None:
    folder, names = real_data("xnli"), INFERENCE["label"].names
    real = load("xnli", folder, languages=["de"], unseen=["sw"])
    for split, rows in (("train", real.train), ("validation", real.dev), ("test", real.test)):
        for code, records in rows.items():
            table = [
                {"premise": record["text"], "hypothesis": record["text_pair"], "label": names.index(record["label"])}
                for record in records
            ]
            write(tmp_path, "inference", table, *shard(code, split))
    assert plain(load("xnli", tmp_path, languages=["de"], unseen=["sw"])) == plain(real)


def test_real_glue(tmp_path: Path) -> None:
    tasks = ["CoLA", "MRPC", "RTE", "STS-B"]
    real = load("glue", real_data("glue"), languages=tasks)
    for split, rows in (("train", real.train), ("validation", real.test)):
        for task, records in rows.items():
            schema = GLUE[task][0]
            columns = {
                "text": "sentence" if task == "CoLA" else "sentence1",
                "text_pair": "sentence2",
                "label": "label",
            }
            table = [{columns[name]: value for name, value in record.items()} for record in records]
            for row in table:
                row |= {"idx": 0} if task == "CoLA" else {}
                row |= {"label": int(row["label"])} if task in ("CoLA", "MRPC") else {}
            write(tmp_path, schema, table, *shard(schema, split))
    copy = load("glue", tmp_path, languages=tasks)
    for task in tasks[:3]:
        assert copy.heads[task] == real.heads[task]
        assert list(copy.train[task]) == list(real.train[task])
        assert list(copy.test[task]) == list(real.test[task])
    scores = [[record["label"] for record in corpus.test["STS-B"]] for corpus in (copy, real)]
    assert scores[0] == pytest.approx(scores[1])


REALIGNED: dict[str, tuple[str, list[str], list[int], list[int]]] = {
    # context, answers, their offsets, where they are
    "right": ("ab cd", ["cd"], [3], [3]),
    "a blank that is meant": ("ab cd", [" cd"], [2], [2]),
    "blanks before the context": ("ab cd ab", ["ab", "cd"], [2, 5], [0, 3]),
    "the nearest one": ("7 7, 8", ["7"], [3], [2]),
    "a blank before the answer": ("on 7 May", ["7"], [2], [3]),
    "no answer": ("ab", [], [], []),
    "too far": ("cd" + " " * 20 + "x", ["cd"], [20], [20]),
    "not there": ("ab", ["x"], [1], [1]),
}


@pytest.mark.parametrize(("context", "texts", "starts", "found"), REALIGNED.values(), ids=REALIGNED)
def test_realigned(context: str, texts: list[str], starts: list[int], found: list[int]) -> None:
    record = {"context": context, "answers": {"text": texts, "answer_start": starts}}
    assert squad.realigned(record)["answers"] == {"text": texts, "answer_start": found}


def bad_rows(folder: Path) -> list[tuple[str, str]]:
    bad = BadRecords()
    sets.load("panx", bad, TASKS, path=str(folder), languages=["de"], unseen=[])
    return [(place.removeprefix(f"{folder}/"), problem) for place, problem in bad]


def test_bad_rows_are_named(tmp_path: Path) -> None:
    good = {"tokens": ["a"], "ner_tags": [0], "langs": ["de"]}
    rows = [
        good,
        good | {"ner_tags": [2]},
        good | {"tokens": [" "]},
        good | {"tokens": None},
        good | {"ner_tags": [-1]},
    ]
    write(tmp_path, "PAN-X", [*rows, good | {"ner_tags": [0, 0]}], *shard("PAN-X.de", "train"))
    write(tmp_path, "PAN-X", [good], *shard("PAN-X.de", "validation"))
    train = "PAN-X.de/train-00000-of-00001.parquet"
    assert bad_rows(tmp_path) == [
        (f"{train}:2", "'I-PER' after 'O' is not IOB2: an entity begins with B-PER; scheme: iob1 converts it"),
        (f"{train}:3", "tokens[0] is blank"),
        (f"{train}:4", "tokens is missing; it must be a list of texts, or a text with single spaces between"),
        (f"{train}:5", "class -1 is not among the file's 7 classes"),
        (f"{train}:6", "1 tokens, but 2 tags"),
    ]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, "PAN-X", [SENTENCE], *shard("PAN-X.de", "validation"))
    write(tmp_path, "PAWS-X", [PAIR | {"label": "1"}], "PAN-X.de/train-00000-of-00002.parquet")
    (tmp_path / "PAN-X.de/train-00001-of-00002.parquet").write_bytes(b"PAR1 and no more")
    (place, problem), (other, damage) = bad_rows(tmp_path)[:2]
    assert (place, other) == ("PAN-X.de/train-00000-of-00002.parquet", "PAN-X.de/train-00001-of-00002.parquet:1")
    assert problem == "no column 'tokens'; it has sentence1, sentence2, label"
    assert damage.startswith("no parquet file, or it is damaged (")


def test_shards_come_in_order(tmp_path: Path) -> None:
    for number in range(3):
        row = SENTENCE | {"tokens": [str(number), "in", "Oslo"]}
        write(tmp_path, "PAN-X", [row], f"PAN-X.de/train-0000{number}-of-00003.parquet")
    write(tmp_path, "PAN-X", [SENTENCE], *shard("PAN-X.de", "validation"))
    corpus = load("panx", tmp_path)
    assert [record["tokens"][0] for record in corpus.train["de"]] == ["0", "1", "2"]


SHARDS: dict[str, tuple[list[str], str | None]] = {
    # files of train: what is missing
    "all": (["train-00000-of-00002", "train-00001-of-00002"], None),
    "with a hash": (["train-00000-of-00002-0a1b2c3d", "train-00001-of-00002-4e5f6a7b"], None),
    "the last": (["train-00000-of-00002"], "train-00001-of-00002"),
    "the first": (["train-00001-of-00003", "train-00002-of-00003"], "train-00000-of-00003"),
    "most": (["train-00001-of-00004-0a1b2c3d"], "train-00000-of-00004, train-00002-of-00004, train-00003-of-00004"),
    "no numbers": (["train-x"], None),
}


@pytest.mark.parametrize(("files", "missing"), SHARDS.values(), ids=SHARDS)
def test_part_of_the_shards_is_no_data_set(tmp_path: Path, files: list[str], missing: str | None) -> None:
    """As a download leaves them that broke off; another language's are nobody's business."""
    write(tmp_path, "PAN-X", [SENTENCE], *(f"PAN-X.de/{file}.parquet" for file in files))
    write(tmp_path, "PAN-X", [SENTENCE], *shard("PAN-X.de", "validation"), "PAN-X.sw/train-00000-of-00009.parquet")
    if missing is None:
        assert len(load("panx", tmp_path, languages=["de"]).train["de"]) == len(files)
        return
    with pytest.raises(UserError, match=f"only some of the files of 'de' are there; missing: {missing}; download them"):
        load("panx", tmp_path, languages=["de"])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, empty, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("multitune.storage.hub.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def cached(cache: Path, repository: str) -> Path:
    """The folder of a repository in the cache."""
    folder = cache / f"datasets--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    return folder / "snapshots" / ("0" * 40)


def test_what_is_in_the_cache_needs_no_network(cache: Path) -> None:
    """By default xquad is all of its languages; ``path`` gives a folder for one set, and the Hub the other."""
    xtreme, tydiqa = cached(cache, "google/xtreme"), cache.parent / "tydiqa"
    for code in hub_sets.SETS["xquad"].languages:
        write(xtreme, "questions", [QUESTION], *shard(f"XQuAD.{code}", "validation"))
    rows = [QUESTION | {"id": "swahili-1"}, QUESTION | {"id": "finnish-1"}]
    write(tydiqa, "questions", rows, *shard("secondary_task", *TRAIN_DEV))
    options: dict[str, Any] = {"languages": ["sw"], "unseen": ["fi", "xquad"]}
    corpus = sets.load("tydiqa", BadRecords(), TASKS, path={"tydiqa": str(tydiqa)}, **options)
    assert list(corpus.test) == ["sw", "fi", *(f"xquad:{code}" for code in hub_sets.SETS["xquad"].languages)]


def test_choices_where_a_recipe_makes_none(cache: Path) -> None:
    xnli, names = cached(cache, "facebook/xnli"), hub_sets.SETS["xnli"].languages
    row = {"premise": "a", "hypothesis": "b", "label": 1}
    write(
        xnli,
        "inference",
        [row],
        *shard("en", "train", "validation"),
        *(file for code in names for file in shard(code, "test")),
    )
    corpus = load("xnli")
    assert (list(corpus.train), list(corpus.test)) == (["en"], ["en", *(code for code in names if code != "en")])


def test_bad_rows_of_the_hub_are_named_by_its_repository(cache: Path) -> None:
    xtreme = cached(cache, "google/xtreme")
    write(xtreme, "PAN-X", [SENTENCE, SENTENCE | {"ner_tags": [0, 0, 2]}], *shard("PAN-X.de", *TRAIN_DEV))
    with pytest.raises(UserError, match=r"^google/xtreme/PAN-X\.de/train-00000-of-00001\.parquet:2: 'I-PER' after 'O'"):
        load("panx", languages=["de"])


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "no network": (
        "panx",
        {"languages": ["de", "sw"]},
        r"^data: panx: no network, and not in the local cache; looked for PAN-X\.de/train-\*\.parquet, "
        r"PAN-X\.de/validation-\*\.parquet, PAN-X\.sw/train-\*\.parquet and 1 more in google/xtreme \(main\) of the "
        r"Hugging Face Hub; path: may name a folder with these files, or with train-xx\.tsv, dev-xx\.tsv$",
    ),
    "no network, a task": ("glue", {"languages": ["QQP"]}, r"looked for qqp/train-\*\.parquet, .* with QQP/train\.tsv"),
    "no network, images": ("images", {}, r"^data: tiny-imagenet-1: no network, .* in zh-plus/tiny-imagenet"),
    "no network, another branch": ("cc100", {"languages": ["sw"]}, r"samples \(refs/convert/parquet\) of"),
    "no such language": ("udpos", {"languages": ["xx"]}, "languages: google/xtreme has no 'xx'; it has af, ar,"),
    "no such unseen language": ("xnli", {"unseen": ["xx"]}, "unseen: facebook/xnli has no 'xx'; it has ar, bg,"),
    "no language": ("opus100", {}, "languages: data: opus100 has no default languages; name some"),
    "nothing to train on": ("mlqa", {}, "data: mlqa has no training data"),
    "no such task": ("glue", {"languages": ["WNLI"]}, "languages: data: glue has no task 'WNLI'; it has CoLA, MNLI"),
}


@pytest.mark.parametrize(("name", "options", "said"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.usefixtures("cache")
def test_mistakes(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(name, **options)


class SmallHub(BaseHTTPRequestHandler):
    """Serves the files of a folder as the Hub serves a repository: its head, its tree, each file with its hash."""

    folder: Path

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        kind, _, _, _, *rest = self.path.strip("/").split("/")
        if kind == "api" and rest[0] == "revision":
            self.answer(json.dumps({"id": "google/xtreme", "sha": "1" * 40}).encode())
        elif kind == "api":
            paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
            tree = [
                {"type": "file", "path": str(path.relative_to(self.folder)), "size": 1, "oid": "0"} for path in paths
            ]
            self.answer(json.dumps(tree).encode())
        else:
            self.answer((self.folder / self.path.split("/", 6)[-1]).read_bytes())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        name = self.path.split("/", 6)[-1]
        if self.path.startswith("/datasets"):
            content = (self.folder / name).read_bytes()
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a small Hub with German PAN-X."""
    write(tmp_path / "hub", "PAN-X", [SENTENCE], *shard("PAN-X.de", *TRAIN_DEV))
    handler = type("Handler", (SmallHub,), {"folder": tmp_path / "hub"})
    with at_the_hubs_place(handler, monkeypatch) as address:
        yield address


def test_downloads(cache: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is downloaded once and then kept; what is not there is said."""
    files = f"{server}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    other_tool = cached(cache, "google/xtreme")  # has another file of the repository, and no list of what is missing
    write(other_tool, "PAN-X", [SENTENCE], *shard("PAN-X.af", "test"))
    half = SENTENCE | {"tokens": ["half", "in", "Oslo"]}
    write(other_tool, "PAN-X", [half], "PAN-X.de/train-00001-of-00002.parquet", *shard("PAN-X.de", "validation"))
    german = load("panx", languages=["de"])
    assert [record["tokens"][0] for record in german.train["de"]] == ["Anna"]
    with pytest.raises(
        UserError, match=r"the repository has no such file; looked for PAN-X\.sw/train-\*\.parquet, .*dev-"
    ):
        load("panx", languages=["de", "sw"])
    monkeypatch.setattr("multitune.storage.hub.HF_HUB_OFFLINE", True)
    assert plain(load("panx", languages=["de"])) == plain(german)
    assert [path.name for path in cache.iterdir() if "--" in path.name] == ["datasets--google--xtreme"]

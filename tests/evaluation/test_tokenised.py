"""Examples in the cache: found by content alone, shared, mended, and never in the way."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import processors

from builders import disk
from multitune import compare
from multitune.data.corpus import Record
from multitune.data.records.spool import Spool
from multitune.data.records.stored import Stored
from multitune.evaluation import tokenised
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.recipe import Recipe
from multitune.tasks import Classification, HeadMap, MaskedLanguageModelling, Regression, Task
from multitune.tasks.classification import OneLabel, label_scores
from multitune.tasks.task import Example

RECORDS = [{"text": "ana sees roma", "label": "x"}, {"text": "oslo", "label": "y"}]
TASK = Classification(("x", "y"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache is in a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "multitune" / "tokenised"


def loaded(model: Path) -> Encoder:
    return encoders.load(str(model), HeadMap.of_all(TASK), layers=1, dropout=None, seed=0)


def plain(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [{name: np.asarray(value).tolist() for name, value in example.items()} for example in examples]


def as_encoded(encoder: Encoder, task: Task = TASK) -> list[dict[str, Any]]:
    return plain(list(task.encode(RECORDS, encoder.tokenizer, 16)))


def test_the_second_run_finds_what_the_first_one_made(folder: Path, tiny_model: Path) -> None:
    first = tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)
    (entry,) = folder.iterdir()
    made = (entry / tokenised.FILE).stat()
    again = tokenised.examples(Spool().keep(RECORDS), TASK, loaded(tiny_model), 16)
    assert isinstance(first, Stored)
    assert plain(first) == plain(again) == as_encoded(loaded(tiny_model))
    assert list(folder.iterdir()) == [entry]
    assert (entry / tokenised.FILE).stat().st_ino == made.st_ino, "it was not written again"


def test_the_runs_of_a_comparison_share_what_the_first_one_made(
    folder: Path, tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    recipe = Recipe(
        data="panx", path=str(tiny_panx), model=str(tiny_model), budget=2, batch_size=4, max_length=32, save_model=False
    )
    compare(recipe, tmp_path / "out", methods=["mtl", "stl"])
    assert len(list(folder.iterdir())) == 5, "training in aa and bb, dev, which is also the test, in aa, bb and cc"


def other_special_tokens(encoder: Encoder) -> None:
    encoder.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 3)]
    )


def cut_at_the_front(encoder: Encoder) -> None:
    encoder.tokenizer.truncation_side = "left"


def no_types(encoder: Encoder) -> None:
    encoder.tokenizer.model_input_names = ["input_ids", "attention_mask"]


def used(encoder: Encoder) -> None:
    """What is no difference: the tokenizer keeps the settings of its last call."""
    encoder.tokenizer(["ana"] * 2, truncation=True, max_length=3, padding=True)


NUMBERS = [{"text": record["text"], "label": float(number)} for number, record in enumerate(RECORDS)]
CHANGES: dict[str, tuple[list[Any], Task, int, Callable[[Encoder], None] | None, int]] = {
    "nothing": (RECORDS, TASK, 16, None, 1),
    "the tokenizer was used": (RECORDS, TASK, 16, used, 1),
    "a text": ([RECORDS[0], RECORDS[1] | {"text": "roma"}], TASK, 16, None, 2),
    "the order": (RECORDS[::-1], TASK, 16, None, 2),
    "fewer": (RECORDS[:1], TASK, 16, None, 2),
    "the numbers of labels": (RECORDS, Classification(("w", "x", "y")), 16, None, 2),
    "the kind": (NUMBERS, Regression(()), 16, None, 2),
    "another kind": (RECORDS, MaskedLanguageModelling(()), 16, None, 2),
    "max_length": (RECORDS, TASK, 15, None, 2),
    "special tokens": (RECORDS, TASK, 16, other_special_tokens, 2),
    "the side of the cut": (RECORDS, TASK, 16, cut_at_the_front, 2),
    "the inputs": (RECORDS, TASK, 16, no_types, 2),
}


@pytest.mark.parametrize(("records", "task", "length", "change", "files"), CHANGES.values(), ids=CHANGES)
def test_all_that_decides_is_in_the_key(
    folder: Path,
    tiny_model: Path,
    records: list[Any],
    task: Task,
    length: int,
    change: Callable[[Encoder], None] | None,
    files: int,
) -> None:
    tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)
    encoder = loaded(tiny_model)
    if change is not None:
        change(encoder)
    found = tokenised.examples(records, task, encoder, length)
    assert plain(found) == plain(list(task.encode(records, encoder.tokenizer, length)))
    assert len(list(folder.iterdir())) == files


def a_kind(version: str | None, reverse: bool) -> Task:
    """A kind of a user's own, as a notebook defines it anew each time that its cell is run."""

    class Sentiment(OneLabel):
        auto_model, metric = Classification.auto_model, "accuracy"

        def encode(self, records: Sequence[Record], tokenizer: Any, max_length: int) -> Iterator[Example]:
            for record in records:
                ids = tokenizer(record["text"])["input_ids"]
                yield {"input_ids": ids[::-1] if reverse else ids, "label": self.number(record["label"])}

        def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            return label_scores(rows, counts)

    if version is not None:
        Sentiment.version = version
    return Sentiment(("x", "y"))


def test_an_edited_kind_without_a_version_is_never_given_old_examples(folder: Path, tiny_model: Path) -> None:
    encoder = loaded(tiny_model)
    for reverse in (False, True):
        kind = a_kind(None, reverse)
        assert plain(tokenised.examples(RECORDS, kind, encoder, 16)) == as_encoded(encoder, kind)
    assert not folder.exists()


def test_a_kind_with_a_version_is_kept_until_that_changes(folder: Path, tiny_model: Path) -> None:
    encoder = loaded(tiny_model)
    first = plain(tokenised.examples(RECORDS, a_kind("1", False), encoder, 16))
    assert plain(tokenised.examples(RECORDS, a_kind("1", True), encoder, 16)) == first, "its author has promised it"
    assert plain(tokenised.examples(RECORDS, a_kind("2", True), encoder, 16)) != first
    assert len(list(folder.iterdir())) == 2


def test_the_version_of_an_older_class_is_not_a_younger_one_s(folder: Path, tiny_model: Path) -> None:
    older = type(a_kind("1", False))
    younger = type("Younger", (older,), {"__module__": "notebook"})
    tokenised.examples(RECORDS, younger(("x", "y")), loaded(tiny_model), 16)
    assert not folder.exists()


def test_a_damaged_file_is_made_anew(folder: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)
    (entry,) = folder.iterdir()
    good = (entry / tokenised.FILE).read_bytes()
    (entry / tokenised.FILE).write_bytes(good[:-8])
    assert plain(tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)) == as_encoded(loaded(tiny_model))
    assert f"{entry} is damaged" in caplog.text
    assert (entry / tokenised.FILE).read_bytes() == good


def test_without_a_cache_examples_are_held_in_memory(
    folder: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    for length in (16, 15):
        assert plain(tokenised.examples(RECORDS, TASK, loaded(tiny_model), length)) == as_encoded(loaded(tiny_model))
    (warning,) = caplog.messages
    assert warning.startswith(f"{folder}: the cache cannot be written")


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"text": "ana sees roma " * 30, "label": "x"}] * 2000
    with disk(tmp_path / "disk", megabytes=1) as small:
        monkeypatch.setenv("XDG_CACHE_HOME", str(small))
        found = tokenised.examples(records, TASK, loaded(tiny_model), 128)
        assert len(found) == 2000
        assert "cannot be written (No space left on device)" in caplog.text
        assert list((small / "multitune" / "tokenised").iterdir()) == []

"""The cache of examples: found by content alone, shared, mended, and never in the way."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from builders import disk
from multitune import compare
from multitune.data.records.spool import Spool
from multitune.data.records.stored import Stored
from multitune.evaluation import tokenised
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.recipe import Recipe
from multitune.tasks import Classification, HeadMap, MaskedLanguageModelling, Regression, Task
from multitune.tasks.task import Example

RECORDS = [{"text": "ana sees roma", "label": "x"}, {"text": "oslo", "label": "y"}]
TASK = Classification(("x", "y"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache is in a test."""
    monkeypatch.setattr(tokenised, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "multitune" / "tokenised"


def loaded(model: Path) -> Encoder:
    return encoders.load(str(model), HeadMap.of_all(TASK), layers=1, dropout=None, seed=0)


def plain(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [{name: np.asarray(value).tolist() for name, value in example.items()} for example in examples]


def as_encoded(encoder: Encoder, task: Task = TASK) -> list[dict[str, Any]]:
    return plain(list(task.encode(RECORDS, encoder.tokenizer, 16)))


def test_the_second_run_finds_what_the_first_one_made(folder: Path, tiny_model: Path) -> None:
    first = tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)
    (file,) = folder.iterdir()
    made = file.stat()
    again = tokenised.examples(Spool().keep(RECORDS), TASK, loaded(tiny_model), 16)
    assert isinstance(first, Stored)
    assert plain(first) == plain(again) == as_encoded(loaded(tiny_model))
    assert list(folder.iterdir()) == [file]
    assert file.stat().st_ino == made.st_ino, "it was not written again"


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


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "a few bytes": lambda content: content[:10],
    "half": lambda content: content[: len(content) // 2],
    "all but one byte": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: b"\0" * len(content),
    "one bit": flipped,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_anew(
    folder: Path, tiny_model: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    assert plain(tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)) == as_encoded(loaded(tiny_model))
    assert f"{file.name} " in caplog.text
    assert "is made anew" in caplog.text
    assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_one_warning(
    folder: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    for length in (16, 15):
        assert plain(tokenised.examples(RECORDS, TASK, loaded(tiny_model), length)) == as_encoded(loaded(tiny_model))
    (warning,) = caplog.messages
    assert warning.startswith(f"{folder}: cannot be written")


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"text": "ana sees roma " * 30, "label": "x"}] * 2000
    with disk(tmp_path / "disk", megabytes=1) as small:
        monkeypatch.setattr(tokenised, "user_cache_path", lambda name: small / name)
        found = tokenised.examples(records, TASK, loaded(tiny_model), 128)
        assert len(found) == 2000
        assert "cannot be written (No space left on device)" in caplog.text
        assert list((small / "multitune" / "tokenised").iterdir()) == []


def test_what_nobody_uses_for_long_goes(folder: Path, tiny_model: Path) -> None:
    old, part, young = folder / "old.arrow", folder / ".killed.arrow.x", folder / "young.arrow"
    part.mkdir(parents=True)
    (part / "killed.arrow").touch()
    for file, days in ((old, 31), (part, 31), (young, 29)):
        file.touch()
        os.utime(file, (time.time() - days * 24 * 3600,) * 2)
    tokenised.examples(RECORDS, TASK, loaded(tiny_model), 16)
    assert not old.exists()
    assert not part.exists()
    assert young.exists()
    assert len(list(folder.iterdir())) == 2


def test_processes_at_once_share_one_cache(folder: Path, tiny_model: Path) -> None:
    fork = multiprocessing.get_context("fork")
    encoder, together = loaded(tiny_model), fork.Barrier(2)

    def ask() -> None:
        for number in range(30):
            records = [{"text": f"ana sees {number}", "label": "x"}] * 50
            together.wait(timeout=60)
            found = tokenised.examples(records, TASK, encoder, 16)
            assert plain(found) == plain(list(TASK.encode(records, encoder.tokenizer, 16)))

    both = [fork.Process(target=ask) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=60)
    assert [one.exitcode for one in both] == [0, 0]
    assert {file.suffix for file in folder.iterdir()} == {".arrow"}
    assert len(list(folder.iterdir())) == 30

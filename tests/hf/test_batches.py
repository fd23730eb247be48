"""Batches of one task: whose, how often, in which order, and where a resumed training goes on."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from multitune.errors import UserError
from multitune.hf import OneTaskBatches
from multitune.methods.sampling import proportional, unimax

SIZES = {"sw": 7, "de": 40, "fi": 13}
LANGUAGES = [name for name, size in SIZES.items() for _ in range(size)]
DATA = Dataset.from_dict({"language": LANGUAGES, "x": list(range(len(LANGUAGES)))})
ROWS = [{"language": name} for name in LANGUAGES]


def batches(count: int, **options: Any) -> list[list[int]]:
    """The first batches, over as many epochs as they need."""
    made = OneTaskBatches(DATA, "language", 4, **options)
    return list(chain.from_iterable(list(made) for _ in range(-(-count // len(made)))))[:count]


def parts(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def language_of(batch: list[int]) -> str:
    (name,) = {LANGUAGES[index] for index in batch}
    return name


@pytest.mark.parametrize(("tasks_per_step", "in_a_row"), [(1, 1), (1, 6), (2, 1), (3, 2)])
def test_batches_are_full_and_of_the_tasks_that_are_told(tasks_per_step: int, in_a_row: int) -> None:
    options: dict[str, Any] = {"tasks_per_step": tasks_per_step, "batches_per_task": in_a_row}
    made = OneTaskBatches(DATA, "language", 4, **options)
    drawn = [language_of(batch) for batch in batches(48, **options)]
    assert {len(batch) for batch in batches(48, **options)} == {4}
    assert len(made) == made.steps_per_epoch * tasks_per_step * in_a_row >= len(DATA) / 4
    for step, names in enumerate(parts(drawn, tasks_per_step * in_a_row)):
        told = made.tasks_of(step)
        assert len(set(told)) == tasks_per_step
        assert list(names) == [name for name in told for _ in range(in_a_row)]


@pytest.mark.parametrize("dataset", [DATA, ROWS, DATA.with_format("torch")], ids=["datasets", "rows", "formatted"])
def test_any_data_set_will_do(dataset: Any) -> None:
    made = OneTaskBatches(dataset, "language", 4)
    assert (made.tasks, made.sizes) == (["de", "fi", "sw"], [40, 13, 7])
    assert list(made) == batches(len(made))


@pytest.mark.parametrize("as_number", [torch.tensor, np.array, np.int64, int], ids=["torch", "array", "numpy", "int"])
def test_equal_numbers_are_one_task(as_number: Callable[[int], Any]) -> None:
    made = OneTaskBatches([{"task": as_number(n % 3)} for n in range(12)], "task", 2)
    assert (made.tasks, made.sizes) == ([0, 1, 2], [4, 4, 4])


@pytest.mark.parametrize(
    ("options", "p"),
    [
        ({}, proportional([40, 13, 7], 0.2)),
        ({"sampling_exponent": 1.0}, proportional([40, 13, 7], 1.0)),
        ({"sampling": "uniform"}, torch.full((3,), 1 / 3, dtype=torch.float64)),
        ({"sampling": "unimax", "budget": 60, "sampling_epochs": 2.0}, unimax([40, 13, 7], 240, 2.0)),
    ],
)
def test_languages_come_as_often_as_p_says(options: dict[str, Any], p: torch.Tensor) -> None:
    made = OneTaskBatches(DATA, "language", 4, **options)
    torch.testing.assert_close(made.probabilities, p)
    drawn = Counter(chain.from_iterable(made.tasks_of(step) for step in range(4000)))
    shares = torch.tensor([drawn[name] / 4000 for name in made.tasks], dtype=torch.float64)
    torch.testing.assert_close(shares, p, atol=0.03, rtol=0)


def test_a_language_repeats_nothing_before_all_of_it_came() -> None:
    came: dict[str, list[int]] = {name: [] for name in SIZES}
    for batch in batches(300):
        came[language_of(batch)] += batch
    for name, indices in came.items():
        passes = [sorted(part) for part in parts(indices, SIZES[name]) if len(part) == SIZES[name]]
        assert len(passes) > 3
        assert all(part == passes[0] for part in passes)
        assert indices[: SIZES[name]] != indices[SIZES[name] : 2 * SIZES[name]]


@pytest.mark.parametrize("done", [0, 1, 14, 15, 16, 37])
def test_it_goes_on_after_any_batch(done: int) -> None:
    whole = batches(60)
    again = OneTaskBatches(DATA, "language", 4)
    again.load_state_dict({"batches": done})
    rest = [*again, *again]
    assert rest == whole[done : done + len(rest)]
    assert again.state_dict() == {"batches": done + len(rest)}


def test_state_counts_the_batches_that_were_given() -> None:
    made = OneTaskBatches(DATA, "language", 4)
    for number, _ in zip(range(1, 6), made, strict=False):
        assert made.state_dict() == {"batches": number}


def test_a_seed_decides() -> None:
    assert batches(30, seed=1) == batches(30, seed=1) != batches(30, seed=2)


def test_ranks_get_batches_of_one_language() -> None:
    """As accelerate shares them out: batch i is rank i mod W's."""
    ranks = [
        [
            language_of(batch)
            for batch in BatchSamplerShard(OneTaskBatches(DATA, "language", 4, batches_per_task=3), 3, k)
        ]
        for k in range(3)
    ]
    assert ranks[0] == ranks[1] == ranks[2]


@pytest.mark.check
def test_accelerates_loader_goes_on_within_an_epoch_and_with_the_next() -> None:
    """As the docs say it."""
    loader = Accelerator(cpu=True).prepare(DataLoader(DATA, batch_sampler=OneTaskBatches(DATA, "language", 4)))
    whole, length = batches(45), len(OneTaskBatches(DATA, "language", 4))
    loader.set_epoch(1)
    came = [batch["x"].tolist() for batch in skip_first_batches(loader, 4)]
    loader.set_epoch(2)
    came += [batch["x"].tolist() for batch in loader]
    assert came == whole[length + 4 : 3 * length]


def test_a_loader_takes_it() -> None:
    loader = DataLoader(DATA, batch_sampler=OneTaskBatches(DATA, "language", 4))
    for batch in loader:
        assert len(set(batch["language"])) == 1


class Item(NamedTuple):
    """A row that has its task as an attribute."""

    language: str


class Pictures(TorchDataset[dict[str, Any]]):
    """Makes each row when it is asked for; ``most`` is how many were in memory at once."""

    def __init__(self) -> None:
        self.most, self._here = 0, WeakSet[Picture]()

    def __len__(self) -> int:
        return 50

    def __getitem__(self, number: int) -> dict[str, Any]:
        picture = Picture()
        self._here.add(picture)
        self.most = max(self.most, len(self._here))
        return {"language": LANGUAGES[number], "picture": picture}


class Picture:
    """What takes memory."""


def test_rows_are_not_all_kept_in_memory() -> None:
    made = Pictures()
    assert OneTaskBatches(made, "language", 4).sizes == [40, 3, 7]
    assert made.most <= 2


class Streamed(IterableDataset[Any]):
    """Knows its length, as many streams do."""

    def __iter__(self) -> Iterator[Any]:
        return iter(ROWS)

    def __len__(self) -> int:
        return len(ROWS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "lang"}, "task_column: train_dataset has no column 'lang'; it has language, x"),
        ({"sampling": "unimax"}, "budget: unimax needs the number of batches"),
        ({"sampling": "temperature"}, "sampling: 'temperature' is not allowed; choose proportional, uniform, unimax"),
        ({"sampling_exponent": -1.0}, "sampling_exponent: must be 0 or more, not -1.0"),
        ({"sampling_epochs": 0.0}, "sampling_epochs: must be above 0, not 0.0"),
        ({"batch_size": 0}, "batch_size: must be 1 or more, not 0"),
        ({"tasks_per_step": 4}, "tasks_per_step: must be from 1 to 3, not 4"),
        ({"dataset": [{"language": None}]}, "train_dataset: row 0 has no value of 'language'"),
        ({"dataset": [{"language": ["de", "sw"]}]}, "row 0's value of 'language' is a list; a task has one name or"),
        ({"dataset": [{"language": torch.ones(2)}]}, "row 0's value of 'language' is a Tensor; a task has one name or"),
        ({"dataset": []}, "train_dataset: has no rows"),
        ({"dataset": [{"x": 1}]}, "task_column: train_dataset has no column 'language'; it has x"),
        (
            {"dataset": TensorDataset(torch.ones(2, 3))},
            "train_dataset: row 0 is a tuple; give rows that are dicts, whose",
        ),
        ({"dataset": [Item("de")]}, "train_dataset: row 0 is a Item; give rows that are dicts, whose 'language' names"),
        ({"dataset": [{"language": float("nan")}]}, "train_dataset: row 0 has no value of 'language'"),
        ({"dataset": [{"language": np.float32("nan")}]}, "train_dataset: row 0 has no value of 'language'"),
        ({"dataset": DATA.to_iterable_dataset()}, "train_dataset: IterableDataset has no rows by number.*not streamed"),
        ({"dataset": Streamed()}, "train_dataset: Streamed has no rows by number.*not streamed"),
        ({"dataset": {"de": DATA, "sw": DATA}}, "train_dataset: is a dict; give one data set whose column 'language'"),
        ({"dataset": DatasetDict({"de": DATA})}, "train_dataset: is a DatasetDict; .*concatenate_datasets"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OneTaskBatches(**({"dataset": DATA, "column": "language", "batch_size": 4} | options))

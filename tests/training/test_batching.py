"""Mini-batches: every example once an epoch, lengths alike, a pure function of the seed, of one task or mixed."""

import tracemalloc
from collections import Counter

import pytest
import torch

from multitune.methods.sampling import CategoricalSampler, EpochSampler
from multitune.seeds import seeded
from multitune.training.batching import POOL, MixedBatches, TaskBatches

LENGTHS = [(7 * n) % 31 + 3 for n in range(1000)]


def epoch(batches: TaskBatches, examples: int) -> list[list[int]]:
    seen: list[list[int]] = []
    while sum(map(len, seen)) < examples:
        seen += batches.next().values()
    return seen


@pytest.mark.parametrize("examples", [1, 5, 16, 17, 1000])
def test_each_epoch_has_every_example_once(examples: int) -> None:
    batches = TaskBatches("de", LENGTHS[:examples], 16, seed=0)
    for _ in range(3):
        assert sorted(row for batch in epoch(batches, examples) for row in batch) == list(range(examples))


def test_lengths_are_alike_within_a_batch() -> None:
    batches = epoch(TaskBatches("de", LENGTHS, 16, seed=0), len(LENGTHS))
    padded = sum(len(batch) * max(LENGTHS[row] for row in batch) for batch in batches)
    assert padded < 1.1 * sum(LENGTHS)
    assert len(LENGTHS) > 16 * POOL, "the data must span more than one pool"


@pytest.mark.parametrize(("name", "seed", "same"), [("de", 0, True), ("de", 1, False), ("nl", 0, False)])
def test_order_depends_on_seed_and_language_alone(name: str, seed: int, same: bool) -> None:
    first, second = TaskBatches("de", LENGTHS, 16, seed=0), TaskBatches(name, LENGTHS, 16, seed=seed)
    assert (epoch(first, 1000) == epoch(second, 1000)) is same


def test_resumes_anywhere() -> None:
    batches, again = TaskBatches("de", LENGTHS[:100], 16, seed=3), TaskBatches("de", LENGTHS[:100], 16, seed=3)
    for _ in range(10):
        batches.next()
    again.load_state_dict(batches.state_dict())
    assert [batches.next() for _ in range(20)] == [again.next() for _ in range(20)]


def test_seeds_are_the_same_in_every_process() -> None:
    assert seeded(0, "dropout", 7).initial_seed() == 5609518076000366288


SHARES = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
MIXED = {"de": LENGTHS[:600], "nl": [length + 9 for length in LENGTHS[:40]], "yo": LENGTHS[:128]}


def mixed(seed: int = 0, epochs: bool = False) -> MixedBatches:
    generator = torch.Generator().manual_seed(seed)
    by_epochs = EpochSampler(3, generator=generator, times=[len(lengths) for lengths in MIXED.values()])
    return MixedBatches(MIXED, by_epochs if epochs else CategoricalSampler(SHARES, generator=generator), 16, seed)


def test_mixed_batches_follow_the_probabilities() -> None:
    batches = mixed()
    drawn: Counter[str] = Counter()
    for _ in range(10 * POOL):
        batch = batches.next()
        assert sum(map(len, batch.values())) == 16
        drawn.update({name: len(rows) for name, rows in batch.items()})
    for name, share in zip(MIXED, SHARES.tolist(), strict=True):
        assert drawn[name] / drawn.total() == pytest.approx(share, abs=0.03)


def test_lengths_are_alike_within_a_mixed_batch() -> None:
    batches, real, padded, languages = mixed(), 0, 0, 0
    for _ in range(4 * POOL):
        batch = batches.next()
        lengths = [MIXED[name][row] for name, rows in batch.items() for row in rows]
        real, padded, languages = real + sum(lengths), padded + 16 * max(lengths), languages + len(batch)
    assert padded < 1.1 * real
    assert languages > 2 * 4 * POOL, "a batch has several languages"


def test_epochs_of_mixed_batches_have_every_example_once() -> None:
    batches, met = mixed(epochs=True), Counter[tuple[str, int]]()
    for _ in range(3 * POOL):  # two epochs
        met.update((name, row) for name, rows in batches.next().items() for row in rows)
    assert met == {(name, row): 2 for name, lengths in MIXED.items() for row in range(len(lengths))}


def test_methods_meet_the_examples_of_a_task_in_one_order_whether_batches_mix_or_not() -> None:
    """But for the sorting within a pool: that of one task's batches has the examples that mixed ones take in turn."""
    alone, batches = TaskBatches("de", MIXED["de"], 16, seed=0), mixed()
    pool = {row for _ in range(POOL) for row in alone.next()["de"]}
    taken = [row for _ in range(POOL) for row in batches.next().get("de", [])]
    assert len(taken) < len(pool) == 16 * POOL < len(MIXED["de"])
    assert set(taken) < pool
    taken += [row for _ in range(POOL) for row in batches.next().get("de", [])]
    assert pool < set(taken)


@pytest.mark.parametrize("epochs", [False, True])
@pytest.mark.parametrize("done", [0, 1, POOL, POOL + 7])
def test_mixed_batches_resume_anywhere(done: int, epochs: bool) -> None:
    batches, again = mixed(epochs=epochs), mixed(epochs=epochs)
    for _ in range(done):
        batches.next()
    again.next()
    again.load_state_dict(batches.state_dict())
    for _ in range(2 * POOL):
        assert batches.next() == again.next()
        assert (batches.place, batches.newest()) == (again.place, again.newest())


def test_an_epoch_takes_few_bytes_of_python() -> None:
    """Lists of all its rows would take 40 bytes an example, of each of many languages."""
    lengths = torch.arange(60_000) % 50
    tracemalloc.start()
    batches = TaskBatches("de", lengths.numpy(), 64, seed=0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * len(lengths)
    assert sum(len(batches.next()["de"]) for _ in range(-(-60_000 // 64))) == 60_000

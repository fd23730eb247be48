"""Mini-batches: every example once an epoch, lengths alike, a pure function of the seed."""

import pytest

from multitune.seeds import seeded
from multitune.training.batching import POOL, Batches

LENGTHS = [(7 * n) % 31 + 3 for n in range(1000)]


def epoch(batches: Batches, examples: int) -> list[list[int]]:
    seen: list[list[int]] = []
    while sum(map(len, seen)) < examples:
        seen.append(batches.next())
    return seen


@pytest.mark.parametrize("examples", [1, 5, 16, 17, 1000])
def test_each_epoch_has_every_example_once(examples: int) -> None:
    batches = Batches("de", LENGTHS[:examples], 16, seed=0)
    for _ in range(3):
        assert sorted(row for batch in epoch(batches, examples) for row in batch) == list(range(examples))


def test_lengths_are_alike_within_a_batch() -> None:
    batches = epoch(Batches("de", LENGTHS, 16, seed=0), len(LENGTHS))
    padded = sum(len(batch) * max(LENGTHS[row] for row in batch) for batch in batches)
    assert padded < 1.1 * sum(LENGTHS)
    assert len(LENGTHS) > 16 * POOL, "the data must span more than one pool"


@pytest.mark.parametrize(("name", "seed", "same"), [("de", 0, True), ("de", 1, False), ("nl", 0, False)])
def test_order_depends_on_seed_and_language_alone(name: str, seed: int, same: bool) -> None:
    first, second = Batches("de", LENGTHS, 16, seed=0), Batches(name, LENGTHS, 16, seed=seed)
    assert (epoch(first, 1000) == epoch(second, 1000)) is same


def test_resumes_anywhere() -> None:
    batches, again = Batches("de", LENGTHS[:100], 16, seed=3), Batches("de", LENGTHS[:100], 16, seed=3)
    for _ in range(10):
        batches.next()
    again.load_state_dict(batches.state_dict())
    assert [batches.next() for _ in range(20)] == [again.next() for _ in range(20)]


def test_seeds_are_the_same_in_every_process() -> None:
    assert seeded(0, "dropout", 7).initial_seed() == 5609518076000366288

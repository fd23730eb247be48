"""Ranking: the loss and the scores written out, what is no negative, and what batches must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

import multitune as mt
from builders import corpus, quick
from multitune.data import sets
from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.recipe import Recipe
from multitune.tasks import HeadMap, Ranking
from multitune.tasks.ranking import TEMPERATURE

RECORDS = [
    {"text": "ana sees", "positive": "roma"},
    {"text": "oslo", "positive": "ana likes roma"},
    {"text": "ben", "positive": "oslo"},
]


def embedded(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """One text alone, without padding."""
    mean: torch.Tensor = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
    return torch.nn.functional.normalize(mean, dim=0)


def loss_of(folder: Path, records: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The task's loss, and the embeddings of texts and positives, one by one."""
    tokenizer, model, task = (
        AutoTokenizer.from_pretrained(folder),
        AutoModel.from_pretrained(folder).eval(),
        Ranking(()),
    )
    inputs, targets = task.collate(list(task.encode(records, tokenizer, 16)), tokenizer.pad_token_id)
    assert task.labels_in_loss(targets) == len(records)
    texts, positives = (
        torch.stack([embedded(model, tokenizer, each[side]) for each in records]) for side in ("text", "positive")
    )
    return task.loss(model(**inputs), targets), texts, positives


def test_the_loss_is_cross_entropy_over_the_positives_of_the_batch(tiny_model: Path) -> None:
    loss, texts, positives = loss_of(tiny_model, RECORDS)
    cosines = torch.nn.functional.cosine_similarity(texts[:, None], positives[None], dim=-1)
    by_hand = [-torch.log_softmax(row / TEMPERATURE, -1)[number] for number, row in enumerate(cosines)]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())


@pytest.mark.parametrize("side", ["text", "positive"])
def test_what_belongs_to_a_text_as_well_is_no_negative_of_it(tiny_model: Path, side: str) -> None:
    again = RECORDS[0] | {"text": "ana likes", "positive": "oslo roma"} | {side: RECORDS[0][side]}
    loss, texts, positives = loss_of(tiny_model, [*RECORDS, again])
    logits = texts @ positives.T / TEMPERATURE
    negatives = {0: [1, 2], 1: [0, 2, 3], 2: [0, 1, 3], 3: [1, 2]}
    by_hand = [-torch.log_softmax(logits[n, [n, *others]], -1)[0] for n, others in negatives.items()]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())


def ranked(records: list[dict[str, str]], states: dict[str, list[float]]) -> list[Any]:
    unit = {text: np.array(state) / np.linalg.norm(state) for text, state in states.items()}
    decoded = [np.stack([unit[each["text"]], unit[each["positive"]]]).astype(np.float32) for each in records]
    return Ranking(()).join(records, decoded, decoded, tokenizer=None)  # type: ignore[arg-type]


def test_places_and_scores_by_hand() -> None:
    records = [{"text": text, "positive": positive} for text, positive in ("ax", "by", "cz")]
    states = {"a": [1.0, 0], "x": [1.0, 0.1], "b": [1.0, 0], "y": [0, 1.0], "c": [0, 1.0], "z": [1.0, 1.0]}
    found = ranked(records, states)
    assert found == [{"rank": 1, "first": "x"}, {"rank": 3, "first": "x"}, {"rank": 2, "first": "y"}]
    scores = Ranking(()).score(records, found)
    assert scores == {"recall_at_1": pytest.approx(100 / 3), "mrr": pytest.approx(100 * (1 + 1 / 3 + 1 / 2) / 3)}


def test_a_model_that_sees_no_difference_finds_nothing() -> None:
    records = [{"text": text, "positive": positive} for text, positive in ("ax", "by", "cz")]
    assert [each["rank"] for each in ranked(records, {text: [1.0, 1.0] for text in "axbycz"})] == [3, 3, 3]


def test_other_positives_of_the_same_text_are_no_mistakes() -> None:
    records = [{"text": "a", "positive": "x"}, {"text": "a", "positive": "y"}, {"text": "b", "positive": "z"}]
    states = {"a": [1.0, 0], "x": [1.0, 0], "y": [1.0, 0.5], "b": [0, 1.0], "z": [0, 1.0]}
    assert [each["rank"] for each in ranked(records, states)] == [1, 1, 1]


def test_each_text_is_cut_for_itself_and_no_token_of_either_is_forgotten(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    record = {"text": "ana " * 30, "positive": "oslo roma"}
    (example,) = Ranking(()).encode([record], tokenizer, 8)
    assert example["text_length"] == 8
    assert tokenizer.decode(example["input_ids"][8:]) == "[CLS] oslo roma [SEP]"
    assert Ranking.tokens(record, tokenizer) == 32
    (new,) = Ranking(()).encode([{"text": "ana"}], tokenizer, 8)
    assert new["text_length"] == len(new["input_ids"]) == 3


def test_a_pooler_stays_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    BertModel(BertConfig.from_pretrained(tiny_model)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    encoder = encoders.load(str(tmp_path), HeadMap.of_all(Ranking(())), layers=None, dropout=None, seed=0)
    names = [name for name, _ in encoder.parameters()]
    assert names
    assert not any("pooler" in name for name in names)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "micro-batches": ({"micro_batch_size": 4}, "micro_batch_size: the examples of a batch are each other's negatives"),
    "a batch of one": ({"batch_size": 1}, "batch_size: an example alone has no negatives in ranking"),
    "a replay": ({"replay": {"share": 0.1}}, "replay: cannot stand beside ranking"),
}


def recipe(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> Recipe:
    monkeypatch.setitem(sets.DATASETS, "ranking", lambda wanted, bad: corpus("ranking"))
    given: dict[str, Any] = {"model": str(tiny_model), "data": "ranking", "budget": 8, "precision": "fp32"}
    return Recipe(**(given | {"batch_size": 8, "max_length": 24} | keys))


@pytest.mark.parametrize(("keys", "said"), REFUSED.values(), ids=REFUSED)
def test_what_would_change_the_negatives_is_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        mt.train(recipe(tiny_model, monkeypatch, **keys), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("method", quick(["mixed", "pcgrad", "swep", "lora", "two runs merged"], "two runs merged"))
def test_other_methods_train_it(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    keys: dict[str, Any] = {"lora": {"rank": 2}} if method == "lora" else {}
    keys |= {"method": method} if method in ("mixed", "pcgrad", "swep") else {"method": "mtl"}
    one = recipe(tiny_model, monkeypatch, **keys)
    result = mt.train(one, tmp_path / "a")
    assert set(result.seen["aa"]) == {"recall_at_1", "mrr"}
    if method == "two runs merged":
        mt.train(one, tmp_path / "b", overrides={"seed": 1})
        mt.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
        assert (tmp_path / "merged" / "model" / "config.json").exists()

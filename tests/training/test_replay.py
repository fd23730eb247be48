"""Pretraining's task beside the languages' own: how often it comes, its loss, what ships, and what cannot have it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertForMaskedLM

import multitune as mt
from builders import prepared, quick, recipe
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.seeds import seeded
from multitune.tasks import MaskedLanguageModelling
from multitune.training.loading import load_corpus
from multitune.training.sampling import probabilities

COMMON = {"replay": {"share": 0.4}, "dropout": 0, "budget": 24}


def test_it_has_its_share_of_the_draws(tiny_model: Path, tiny_panx: Path) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, "sequential", **COMMON))
    assert run.languages == ("aa", "bb", run.heads.replay)
    drawn = [run.languages[task] for _ in range(2000) for task in run.update.draw(9)]
    assert drawn.count("replay") / len(drawn) == pytest.approx(0.4, abs=0.04)
    assert drawn.count("aa") > drawn.count("bb") > 0, "the languages share the rest by their sizes"


def test_its_loss_is_that_of_a_masked_language_model_on_the_training_texts(tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential", **COMMON)
    run = prepared(one)
    texts = [" ".join(record["tokens"]) for rows in load_corpus(one).train.values() for record in rows]
    assert len(run.examples["replay"]) == len(texts)
    with torch.no_grad():
        loss = run.loss(2)

    model = run.encoder.head("replay")
    assert isinstance(model, BertForMaskedLM)
    task, tokenizer = MaskedLanguageModelling(()), AutoTokenizer.from_pretrained(tiny_model)
    draw = seeded(one.seed, "variation", "replay", 0, 1)
    encoded = list(task.encode([{"text": text} for text in texts], tokenizer, one.max_length))
    examples = [task.augmented(encoded[row], draw) for row in run.batches["replay"].newest()["replay"]["rows"]]
    inputs, targets = task.collate(examples, tokenizer.pad_token_id)
    with torch.no_grad():
        torch.testing.assert_close(loss, model(**inputs, labels=targets).loss)


@pytest.mark.parametrize(
    "method",
    quick(["mtl", "gradvac", "lookahead", "recadam", "sequential_reptile", "swep"], "gradvac", "sequential_reptile"),
)
def test_methods_train_with_it_and_ship_the_languages_model(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, method: str
) -> None:
    result = mt.train(recipe(tiny_model, tiny_panx, method, **COMMON), tmp_path)
    assert list(result.seen) == ["aa", "bb"]
    assert set(json.loads((tmp_path / "results.json").read_text())["unseen"]) == {"cc"}
    model, info = AutoModelForTokenClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values())
    before = AutoModelForTokenClassification.from_pretrained(tiny_model).base_model.state_dict()
    moved = sum(float((weight - before[name]).square().sum()) for name, weight in model.base_model.state_dict().items())
    assert moved**0.5 == pytest.approx(result.drift, rel=1e-4), "drift leaves the replay's head aside"


def test_a_set_without_a_test_split_may_be_replayed_beside_the_choice_of_the_best(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    (tmp_path / "de.jsonl").write_text("".join(f'{{"text": "ana sees {n}", "label": "x"}}\n' for n in range(50)))
    given: dict[str, Any] = {"model": str(tiny_model), "data": "folder", "path": str(tmp_path), "select": "best"}
    one = Recipe(**given | {"replay": {"data": "panx", "path": str(tiny_panx)}})
    assert len(prepared(one).examples["replay"]) > 50


def test_a_budget_of_which_replay_has_most_is_shared_out_by_unimax(tiny_model: Path, tiny_panx: Path) -> None:
    """A tenth of one gradient computation is left to two languages, of which neither may have a whole one."""
    one = recipe(tiny_model, tiny_panx, budget=1, batch_size=8, sampling="unimax", replay={"share": 0.9})
    assert probabilities(one, [60, 20]).tolist() == pytest.approx([0.05, 0.05, 0.9])


def test_texts_of_another_set(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    for split, count in (("train", 50), ("dev", 5)):
        lines = [f'{{"text": "ana sees {n}", "label": "x"}}\n' for n in range(count)]
        (tmp_path / f"{split}-de.jsonl").write_text("".join(lines))
    keys = COMMON | {"replay": {"data": "folder", "path": str(tmp_path)}}
    run = prepared(recipe(tiny_model, tiny_panx, "sequential", **keys))
    assert len(run.examples["replay"]) == 50


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"method": "stl"}, "replay cannot be used with stl: stl trains one model per language"),
        ({"replay": {"share": 1}}, "replay.share: .*less than 1"),
        ({"replay": {"chare": 0.1}}, "replay: unknown key 'chare' .*did you mean 'share'"),
        ({"replay": {"data": "folder", "path": "nowhere"}}, "replay: path: nowhere is not a folder"),
        ({"replay": {"languages": ["aa"]}}, "replay: languages is of the data set that replay.data names"),
        ({"replay": {"path": "nowhere"}}, "replay: path is of the data set that replay.data names"),
        ({"ship_vocabulary": "trimmed"}, "ship_vocabulary: a model that learns from replay says all tokens; set it to"),
        (
            {"task": "masked_language_modelling"},
            r"replay: cannot stand beside masked_language_modelling \(data: panx\)",
        ),
    ],
)
def test_mistakes(tmp_path: Path, tiny_model: Path, tiny_panx: Path, keys: dict[str, Any], said: str) -> None:
    given = recipe(tiny_model, tiny_panx).model_dump(mode="json", exclude_defaults=True) | COMMON | {"options": {}}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(given | keys))
    with pytest.raises(UserError, match=said):
        mt.train(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""The card of a shipped model: metadata that the Hub reads, scores, and code that loads the model."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

import multitune as mt
from builders import LABELS, corpus, recipe, run_card, run_result, stop_after
from multitune.data import sets
from multitune.data.corpus import Corpus, Head
from multitune.errors import Interrupted
from multitune.recipe import Recipe, Replay
from multitune.results.run import Shipped
from multitune.tasks import HeadMap, Tagging
from multitune.training.model_card import FILE, Training, card

HOSTILE = ["a|b", "<script>", "no", "[x](http://y)", "two\nlines", "```", "'\"\\", "{{ x }}", "\x1b[31m"]


def made(*languages: str, labels: tuple[str, ...] = ("O",), **keys: Any) -> str:
    """The card of a run that never was, with a score for each language."""
    result = run_result({language: {"f1": 50.0 + n, "loss": None} for n, language in enumerate(languages)})
    task, given = Tagging(labels), {"data": "panx", "method": "mtl"} | keys
    return card(
        Training(Recipe(**given), HeadMap.of_all(task), languages, dict.fromkeys(languages, 7), 8, result),
        task,
        languages,
    )


def metadata(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_scores_are_the_model_index_that_the_hub_reads() -> None:
    data = ModelCard(made("de", "sw")).data
    assert isinstance(data, ModelCardData)
    assert data.eval_results is not None
    read = [(each.dataset_config, each.metric_type, each.metric_value) for each in data.eval_results]
    assert read == [("de", "f1", 50.0), ("sw", "f1", 51.0)], "a score that is not finite has no place there"
    assert {each.task_type for each in data.eval_results} == {"token-classification"}
    assert (data.library_name, data.pipeline_tag, data.metrics) == ("transformers", "token-classification", ["f1"])


def test_a_card_shows_losses_with_the_digits_that_tell_them_apart() -> None:
    result, task = run_result({"de": {"f1": 50.0, "loss": 1.2344}}), Tagging(("O",))
    training = Training(Recipe(data="panx", method="mtl"), HeadMap.of_all(task), ["de"], {"de": 7}, 3, result)
    assert "| de | yes | 7 | 50.00 | 1.234 |" in card(training, task, ["de"])


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_languages_labels_and_folders_stay_text(name: str) -> None:
    text = made(name, "de", labels=("O", name), path=f"/secret/{name.replace('/', '')}")
    found = metadata(text)
    _, results = model_index_to_eval_results(found["model-index"])
    assert [each.dataset_config for each in results] == [name, "de"]
    assert found["language"] == (["no", "de"] if name == "no" else ["de"])
    (rows,) = [part for part in text.split("\n\n") if part.startswith("| language")]
    assert [row.replace("\\|", "").count("|") for row in rows.splitlines()] == [6] * 5
    assert "<script>" not in text.split("\n---\n")[1].partition("```")[0]
    assert "/secret" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("path", "name"),
    [("/secret/tickets", "tickets"), ("tickets.csv", "tickets.csv"), ({"folder": "a/b"}, "b"), (".", "folder")],
)
def test_own_data_go_by_the_last_name_of_their_path(path: str | dict[str, str], name: str) -> None:
    text = made("de", data="folder", path=path)
    assert f"fine-tuned on {name} (de)" in text
    (results,) = metadata(text)["model-index"]
    assert (results["name"], results["results"][0]["dataset"]["name"]) == (f"multilingual-e5-small-{name}-mtl", name)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("de", "de"),
        ("pt-BR", "pt"),
        ("eng_Latn", "eng"),
        ("zh-Hant-TW", "zh"),
        ("iw", "he"),
        ("German", None),
        ("cola-2", None),
        ("la", "la"),
        ("xx", None),
        ("ns", None),
    ],
)
def test_the_hub_is_told_codes_alone(language: str, code: str | None) -> None:
    assert metadata(made(language)).get("language") == (None if code is None else [code])


@pytest.mark.parametrize(
    ("keys", "base", "data_sets", "license"),
    [
        ({}, "intfloat/multilingual-e5-small", ["google/xtreme"], "mit"),
        ({"model": "FacebookAI/xlm-roberta-base"}, "FacebookAI/xlm-roberta-base", ["google/xtreme"], None),
        ({"model": "scratch:transformer", "path": "there"}, None, None, None),
        ({"model": "no such/model/here"}, None, ["google/xtreme"], None),
        ({"data": "assistant"}, "intfloat/multilingual-e5-small", None, "mit"),
    ],
)
def test_where_model_and_data_come_from(
    keys: dict[str, Any], base: str | None, data_sets: list[str] | None, license: str | None
) -> None:
    found = metadata(made("de", **keys))
    assert (found.get("base_model"), found.get("datasets"), found.get("license")) == (base, data_sets, license)


@pytest.mark.parametrize(
    ("front", "license"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ("license: [a, b]", None),
        ("license: 'a b\\n'", None),
        ("license: {", None),
        ("- list", None),
    ],
)
def test_the_licence_is_that_of_the_pretrained_models_own_card(tmp_path: Path, front: str, license: str | None) -> None:
    (tmp_path / FILE).write_text(f"---\n{front}\n---\nA model.\n")
    assert metadata(made("de", model=str(tmp_path))).get("license") == license


def test_a_run_writes_its_card_and_it_is_the_same_after_a_resume(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tiny_model, tiny_panx)
    result = mt.train(one, tmp_path / "whole")
    text = run_card(tmp_path / "whole", monkeypatch)
    assert f"| cc | no | 24 | {result.unseen['cc']['f1']:.2f} |" in text
    assert "split: dev" in text, "PAN-X as the papers use it reports dev"
    stop_after(11, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, tmp_path / "parts")
    half = run_card(tmp_path / "parts", monkeypatch)
    assert "training was stopped after 12 of 40 gradient computations" in half
    assert "model-index" not in metadata(half)
    mt.train(one, tmp_path / "parts", resume=True)
    assert (tmp_path / "parts" / "model" / FILE).read_text() == text
    assert mt.evaluate(tmp_path / "whole") == result.seen | result.unseen


def test_single_language_models_have_a_card_each_and_one_together(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mt.train(recipe(tiny_model, tiny_panx, "stl"), tmp_path / "run")
    together = metadata(run_card(tmp_path / "run", monkeypatch))
    alone = metadata(run_card(tmp_path / "run", monkeypatch, "model/bb"))
    assert together["language"] == ["aa"], "ISO 639 has Afar, and no bb"
    assert "language" not in alone
    assert alone["model-index"][0]["results"] == together["model-index"][0]["results"][1:]


def test_tasks_with_heads_of_their_own_have_a_card_each_and_one_together(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {name: Head(kind, LABELS[kind]) for name, kind in (("even", "classification"), ("no", "pos_tagging"))}
    parts = {name: corpus(head.task) for name, head in heads.items()}
    train, test = ({name: getattr(part, split)["aa"] for name, part in parts.items()} for split in ("train", "test"))
    found = Corpus("classification", (), train, test, test, heads=heads)
    monkeypatch.setitem(sets.DATASETS, "tasks", lambda wanted, bad: found)
    keys: dict[str, Any] = {"model": str(tiny_model), "data": "tasks", "method": "mtl", "budget": 8, "batch_size": 4}
    mt.train(Recipe(**keys, max_length=24, replay=Replay()), tmp_path / "run")
    together = metadata(run_card(tmp_path / "run", monkeypatch))
    assert "language" not in together, "their names are no languages"
    assert "pipeline_tag" not in together, "they are of several kinds"
    assert {each["dataset"]["config"] for each in together["model-index"][0]["results"]} == {"even", "no"}
    alone = metadata_load(tmp_path / "run" / "model" / "no" / FILE)
    assert alone is not None
    assert alone["pipeline_tag"] == "token-classification"


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("last", "8 gradient computations, 5 steps."),
        ("best", "3 gradient computations (the best on dev of 8), 5 steps in all."),
    ],
)
def test_a_card_says_which_weights_ship_and_how_far_the_run_went(select: str, said: str) -> None:
    shipped = Shipped(select=select, gradients=8 if select == "last" else 3, dev=1.0)
    result = run_result({"de": {"f1": 1.0}}, shipped=shipped, steps=5, drift=None)
    task = Tagging(("O",))
    assert said in card(Training(Recipe(data="panx"), HeadMap.of_all(task), ["de"], {"de": 1}, 8, result), task, ["de"])

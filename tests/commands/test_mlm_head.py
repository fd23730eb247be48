"""Texts of any data set as masked language modelling, heads on a frozen encoder, and a probe that asks them."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import multitune as mt
from builders import lines, recipe
from multitune.commands.probe import probe
from multitune.data.corpus import Corpus, Record
from multitune.data.records import texts
from multitune.errors import UserError
from multitune.tasks import TASKS

HEAD = {"task": "masked_language_modelling", "freeze": ["encoder"], "dropout": 0.0, "budget": 60}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> Path:
    """A run that trained a head for masked tokens."""
    out = tmp_path_factory.mktemp("head")
    mt.train(recipe(tiny_model, tiny_panx, "sequential", **HEAD), out)
    return out


def test_a_head_learns_on_an_encoder_that_stays(head: Path, tiny_model: Path) -> None:
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(head / "model" / "model.safetensors")
    assert before.keys() < {name.removeprefix("bert.") for name in after}
    assert all(torch.equal(after[f"bert.{name}"], weight) for name, weight in before.items())
    losses = [line["loss"] for line in lines(head) if line["event"] == "train"]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    validation = [line for line in lines(head) if line["event"] == "validate"][-1]
    assert validation["drift"] == 0
    assert set(validation["dev"]["aa"]) == {"accuracy", "loss"}


def test_the_probe_asks_the_trained_head(tmp_path: Path, head: Path, tiny_model: Path, tiny_panx: Path) -> None:
    mt.train(recipe(tiny_model, tiny_panx, "sequential", budget=20), tmp_path / "run")
    assert probe(tmp_path / "run").masked_lm is None
    found = probe(tmp_path / "run", mlm_head=head)
    assert found.masked_lm is not None
    assert found.masked_lm.head == str(head / "model")
    assert any("not pretraining's" in note for note in found.notes)
    average = found.masked_lm.average.seen
    assert average.pretrained is not None
    assert average.tuned is not None
    assert average.pretrained < average.tuned, "tuned for entities, the encoder tells the head less"
    shutil.copytree(tiny_model, tmp_path / "moved")
    again = probe(tmp_path / "run", {"model": str(tmp_path / "moved")}, mlm_head=head)
    assert again.masked_lm == found.masked_lm


def test_heads_that_do_not_fit_are_refused(tmp_path: Path, head: Path, tiny_model: Path, tiny_panx: Path) -> None:
    mt.train(recipe(tiny_model, tiny_panx, "sequential", budget=4, layers=1), tmp_path / "one")
    with pytest.raises(UserError, match=r"--mlm-head: .* layers: None, the run to probe on .* layers: 1"):
        probe(tmp_path / "one", mlm_head=head)
    with pytest.raises(UserError, match=r"--mlm-head: .* did not train a head for masked tokens alone"):
        probe(tmp_path / "one", mlm_head=tmp_path / "one")
    with pytest.raises(UserError, match=r"--mlm-head: .*nowhere holds no finished run"):
        probe(tmp_path / "one", mlm_head=tmp_path / "nowhere")


def test_a_model_without_new_weights_cannot_be_frozen(tmp_path: Path, tiny_lm: Path, tiny_panx: Path) -> None:
    with pytest.raises(UserError, match="freeze: nothing would be left to train"):
        mt.train(recipe(tiny_lm, tiny_panx, "sequential", **HEAD), tmp_path / "run")


@pytest.mark.parametrize(
    ("task", "record", "text"),
    [
        ("classification", {"text": "a", "text_pair": "b", "label": "x"}, "a b"),
        ("regression", {"text": "a", "label": 1.0}, "a"),
        ("tagging", {"tokens": ["a", "b"], "tags": ["O", "O"]}, "a b"),
        ("question_answering", {"context": "a", "question": "b", "answers": {}}, "a"),
        ("translation", {"source": "a", "target": "b"}, "a"),
    ],
)
def test_the_texts_of_each_kind(task: str, record: Record, text: str) -> None:
    corpus = Corpus(task, ("x",), {"aa": [record]}, {"aa": [record]}, {"aa": [record], "bb": [record]})
    found = texts.unlabelled(corpus, TASKS, "masked_language_modelling")
    assert found.task == "masked_language_modelling"
    assert found.labels == ()
    assert [list(rows) for rows in (found.train["aa"], found.dev["aa"], found.test["bb"])] == [[{"text": text}]] * 3
    assert (list(found.train), list(found.test)) == (["aa"], ["aa", "bb"])


def test_images_have_no_texts() -> None:
    corpus = Corpus("image_classification", ("x",), {}, {}, {"aa": []})
    with pytest.raises(UserError, match="wants texts, and this data set is of image_classification"):
        texts.unlabelled(corpus, TASKS, "masked_language_modelling")

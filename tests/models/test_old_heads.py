"""Models that come with a head: used again for the same purpose alone, else new, with a line that says so."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.tasks import Classification, HeadMap, PosTagging, Regression, Task

OLD = ("no", "perhaps", "yes")
TASKS: dict[str, tuple[Task, bool]] = {
    "the same labels": (Classification(OLD), True),
    "fewer labels": (Classification(OLD[:2]), False),
    "as many other labels": (Classification(("a", "b", "c")), False),
    "the same labels in another order": (Classification(OLD[::-1]), False),
    "another kind with as many labels": (PosTagging(OLD), False),
    "a number": (Regression(()), False),
}


def loaded(folder: Path, task: Task) -> Encoder:
    return encoders.load(str(folder), HeadMap.of_all(task), layers=None, dropout=None, seed=3)


@pytest.fixture(scope="module")
def shipped(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for three classes, whose weights a run has moved."""
    folder = tmp_path_factory.mktemp("shipped")
    encoder = loaded(tiny_model, Classification(OLD))
    with torch.no_grad():
        for _, weight in encoder.parameters():
            weight.add_(1.0)
    encoder.save(folder)
    return folder


@pytest.mark.parametrize(("task", "kept"), TASKS.values(), ids=TASKS)
def test_a_head_is_used_for_its_own_purpose_alone(
    shipped: Path, caplog: pytest.LogCaptureFixture, task: Task, kept: bool
) -> None:
    old = AutoModelForSequenceClassification.from_pretrained(shipped)
    encoder = loaded(shipped, task)
    names = {name for name, _ in encoder.parameters()} - {name for name, _ in encoder.pretrained_parameters()}
    assert ("classifier.weight" in names) is not kept
    assert ("gets a new one" in caplog.text) is not kept
    model, head = encoder.model.state_dict(), old.classifier.weight
    body = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(model[body], old.state_dict()[body])
    if kept:
        assert torch.equal(model["classifier.weight"], head)
    else:
        assert model["classifier.weight"].abs().max() < 0.5 < head.abs().min()


def test_a_model_without_a_head_gets_one_without_a_word(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded(tiny_model, Classification(OLD))
    assert caplog.text == ""


def test_a_new_head_comes_from_the_seed_alone(shipped: Path) -> None:
    first, second = (loaded(shipped, Classification(("a", "b", "c"))) for _ in range(2))
    weights = [encoder.model.state_dict()["classifier.weight"] for encoder in (first, second)]
    assert torch.equal(*weights)

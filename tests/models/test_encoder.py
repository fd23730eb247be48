"""Encoders: what is new in them, what drift measures, and that the saved model is the one that trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3Config,
    PretrainedConfig,
    ResNetConfig,
)

from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.models.poolers import GAIN
from multitune.tasks import CausalLM, Classification, HeadMap, ImageClassification, Tagging, Task

TEXTS = ["ana sees roma", "the old coro and the old bela", "oslo"]


def loaded(folder: Path, *, layers: int | None = None, dropout: float | None = None, seed: int = 0) -> Encoder:
    heads = HeadMap.of_all(Classification(("no", "perhaps", "yes")))
    return encoders.load(str(folder), heads, layers=layers, dropout=dropout, seed=seed)


def logits(encoder: Encoder) -> torch.Tensor:
    task = Classification(("no", "perhaps", "yes"))
    examples = list(task.encode([{"text": text, "label": "no"} for text in TEXTS], encoder.tokenizer, 32))
    with encoder.evaluating():
        found: torch.Tensor = encoder.model(**encoder.on_device(task.inputs(examples, encoder.pad_id))).logits
        return found


def shifted(encoder: Encoder, by: float) -> int:
    """Move every pretrained weight by a constant; returns how many there are."""
    with torch.no_grad():
        for _, weight in encoder.pretrained_parameters():
            weight.add_(by)
    return sum(weight.numel() for _, weight in encoder.pretrained_parameters())


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("layers", [None, 1])
def test_the_saved_model_is_an_ordinary_one_with_the_same_logits(
    tmp_path: Path, tiny_model: Path, trim: bool, layers: int | None
) -> None:
    encoder = loaded(tiny_model, layers=layers)
    if trim:
        encoder.trim(encoder.tokenizer(TEXTS[0])["input_ids"])
    shifted(encoder, 0.01)
    expected = logits(encoder)
    encoder.save(tmp_path)
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    with torch.no_grad():
        found = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert model.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    assert model.config.num_hidden_layers == (layers or 2)


USES: dict[str, dict[str, Any]] = {
    "not at all": {},
    "cut": {"truncation": True, "max_length": 4},
    "padded": {"padding": True},
    "cut and padded": {"truncation": True, "max_length": 8, "padding": "max_length", "pad_to_multiple_of": 4},
    "cut into windows": {
        "truncation": "longest_first",
        "max_length": 9,
        "stride": 1,
        "return_overflowing_tokens": True,
    },
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("ships_both", [False, True])
def test_a_saved_tokenizer_neither_truncates_nor_pads(
    tmp_path: Path, tiny_model: Path, use: dict[str, Any], ships_both: bool
) -> None:
    """However it was used before, and whatever the model's own does; and saving changes nothing in the one in use."""
    shutil.copytree(tiny_model, tmp_path / "model")
    if ships_both:
        own = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
        own.enable_truncation(7)
        own.enable_padding(length=7)
        own.save(str(tmp_path / "model" / "tokenizer.json"))
    encoder = loaded(tmp_path / "model")
    if use:
        encoder.tokenizer(TEXTS, **use)
    backend = encoder.tokenizer.backend_tokenizer
    before = (backend.truncation, backend.padding)
    assert encoder.tokenizer_hash == loaded(tiny_model).tokenizer_hash
    encoder.save(tmp_path / "saved")
    assert (backend.truncation, backend.padding) == before
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert (saved["truncation"], saved["padding"]) == (None, None)
    encoder.save(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "saved" / "tokenizer.json").read_bytes()


def test_drift_of_a_known_shift(tiny_model: Path) -> None:
    encoder = loaded(tiny_model)
    encoder.trim([5, 6, 7])
    encoder.remember()
    assert encoder.drift() == 0.0
    count = shifted(encoder, 0.5)
    assert encoder.drift() == pytest.approx(0.5 * count**0.5, rel=1e-5)
    with torch.no_grad():
        for name in ("classifier.weight", "bert.pooler.dense.weight"):
            encoder.model.get_parameter(name).add_(100.0)
    assert encoder.drift() == pytest.approx(0.5 * count**0.5, rel=1e-5), "heads are excluded"


def test_a_missing_pooler_passes_the_first_token_through(tiny_model: Path) -> None:
    model = loaded(tiny_model).model
    assert torch.equal(model.get_parameter("bert.pooler.dense.weight"), GAIN * torch.eye(16))
    assert not model.get_parameter("bert.pooler.dense.bias").any()


def test_new_weights_come_from_the_seed_alone(tiny_model: Path) -> None:
    torch.manual_seed(123)
    heads = [loaded(tiny_model, seed=seed).model.get_parameter("classifier.weight") for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    state = torch.get_rng_state()
    loaded(tiny_model)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left as it was"


@pytest.mark.parametrize("dropout", [None, 0.0, 0.3])
def test_dropout_while_training(tiny_model: Path, dropout: float | None) -> None:
    model = loaded(tiny_model, dropout=dropout).model
    own = AutoConfig.from_pretrained(tiny_model).hidden_dropout_prob
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {own if dropout is None else dropout}
    assert model.training


def test_tagging_has_no_new_square_layer(tiny_model: Path) -> None:
    heads = HeadMap.of_all(Tagging(("O", "B-PER")))
    encoder = encoders.load(str(tiny_model), heads, layers=None, dropout=None, seed=0)
    new = {name for name, _ in encoder.parameters()} - {name for name, _ in encoder.pretrained_parameters()}
    assert new == {"classifier.weight", "classifier.bias"}


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model: cannot load the folder"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("config", "task", "message"),
    [
        (Gemma3Config(), CausalLM(()), r"model: '.*' reads images or sound beside text \(it is a gemma3\); choose one"),
        (Gemma3Config(), Classification(("no", "yes")), "model: '.*' reads images or sound beside text"),
        (ResNetConfig(), ImageClassification(("no", "yes")), r"layers: .* \(a resnet\) has no one row of layers"),
    ],
)
def test_what_a_configuration_says_is_refused_before_weights_are_read(
    tmp_path: Path, config: PretrainedConfig, task: Task, message: str
) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        encoders.load(str(tmp_path), HeadMap.of_all(task), layers=1, dropout=None, seed=0)

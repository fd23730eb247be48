"""Model folders that are damaged, incomplete or want to run code: one line that names the folder, and nothing runs."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models.fetching import fetched
from multitune.tasks import Classification, HeadMap


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def edited(name: str, **keys: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | keys))

    return edit


def without(name: str, *then: Callable[[Path], None]) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        (folder / name).unlink()
        for step in then:
            step(folder)

    return remove


WEIGHTS = "model.safetensors"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "weights cut": cut(WEIGHTS),
    "weights empty": written(WEIGHTS, b""),
    "weights zeros": written(WEIGHTS, bytes(1000)),
    "weights missing": without(WEIGHTS),
    "weights of other sizes": edited("config.json", hidden_size=32),
    "fewer tokens than the config says": edited("config.json", vocab_size=3),
    "an index of no weights": without(WEIGHTS, written(f"{WEIGHTS}.index.json", b"{}")),
    "an index of missing files": without(
        WEIGHTS, written(f"{WEIGHTS}.index.json", b'{"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}')
    ),
    "a pickle that is none": without(WEIGHTS, written("pytorch_model.bin", b"abc")),
    "config cut": cut("config.json"),
    "config a list": written("config.json", b"[]"),
    "config empty": written("config.json", b"{}"),
    "config of an unknown model": edited("config.json", model_type="nothing"),
    "config of a wrong type": edited("config.json", hidden_size="x"),
    "config with a negative size": edited("config.json", hidden_size=-4),
    "config with an unknown function": edited("config.json", hidden_act="nope"),
    "tokenizer cut": cut("tokenizer.json"),
    "tokenizer empty": written("tokenizer.json", b"{}"),
    "tokenizer a list": written("tokenizer.json", b"[]"),
    "tokenizer of another kind": edited("tokenizer.json", model={"type": "BPE"}),
    "tokenizer missing": without("tokenizer.json"),
    "tokenizer config cut": cut("tokenizer_config.json"),
    "tokenizer config a list": written("tokenizer_config.json", b"[]"),
}


def load(folder: Path) -> None:
    encoders.load(str(folder), HeadMap.of_all(Classification(("no", "yes"))), layers=None, dropout=None, seed=0)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.filterwarnings("ignore")  # transformers' and torch's own, before they fail
def test_a_damaged_folder_is_named_in_one_line(
    tmp_path: Path, tiny_model: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    damage(folder)
    with pytest.raises(UserError, match=r"^model: ") as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_gated_model_is_told_with_what_to_do() -> None:
    def gated(name: str, **options: Any) -> None:
        raise OSError(f"You are trying to access a gated repo.\nMake sure to have access to it at hub/{name}.")

    with pytest.raises(UserError, match=r"^model: 'me/model' is gated: ask for access at \S+/me/model, and log in"):
        fetched("me/model", gated)


CODE = """
from pathlib import Path
Path({!r}).touch()
from transformers import BertConfig, BertForSequenceClassification
class Config(BertConfig):
    model_type = "own"
class Model(BertForSequenceClassification):
    config_class = Config
"""
"""A repository's file that leaves a trace when it runs."""


OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "model": ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}),
    "tokenizer": ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.T"]}}),
}


@pytest.mark.parametrize("part", OWN)
def test_code_of_a_model_never_runs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whatever standard input says: a model that needs it is refused, a tokenizer that transformers has is used."""
    monkeypatch.setattr("builtins.input", lambda question: "y")
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "ran")))
    name, keys = OWN[part]
    edited(name, **keys)(folder)
    if part == "model":
        with pytest.raises(UserError, match="needs code of its own, which multitune never runs"):
            load(folder)
    else:
        load(folder)
    assert not (tmp_path / "ran").exists()

"""Models of the Hub: fetched once and whole, whatever the cache lacks, and told where they cannot be trained."""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.models.tokenizers import load_tokenizer
from multitune.tasks import CausalLM, Classification, HeadMap
from small_hub import at_the_hubs_place
from tiny_causal import TEMPLATE, make

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day", "##s"]
COMMIT = "a" * 40


class Models(BaseHTTPRequestHandler):
    """Serves a folder's folders as the models me/FOLDER."""

    folder: Path

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            files = [path.name for path in (self.folder / parts[3]).iterdir()] if len(parts) > 3 else []
            tree: Any = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in files]
            self.answer(200, json.dumps(tree if "tree" in parts else {"id": "x", "sha": COMMIT}).encode())
            return
        file = self.folder / parts[1] / "/".join(parts[4:])
        if file.is_file():
            self.answer(200, file.read_bytes(), ETag=f'"{file.name}"')
        else:
            self.answer(404, b"", X_Error_Code="EntryNotFound")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X_Repo_Commit": COMMIT, "Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a small Hub's models, beside an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub").mkdir()
    with at_the_hubs_place(type("Handler", (Models,), {"folder": tmp_path / "hub"}), monkeypatch) as address:
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        yield tmp_path / "hub"


def bert(folder: Path) -> Path:
    """A family whose tokenizer transformers makes without its files, too: of special tokens alone."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    return folder


def load(name: str) -> Encoder:
    return encoders.load(name, HeadMap.of_all(Classification(("no", "yes"))), layers=None, dropout=None, seed=0)


@pytest.mark.parametrize("family", ["bert", "no family's"])
def test_a_model_is_fetched_with_its_tokenizer_and_needs_no_network_then(
    hub: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Its configuration comes first, so that the cache is not empty when the tokenizer is looked for."""
    folder = bert(hub / "model") if family == "bert" else shutil.copytree(tiny_model, hub / "model")
    whole = load_tokenizer(str(folder)).get_vocab()
    assert len(whole) >= len(WORDS)
    assert load("me/model").tokenizer.get_vocab() == whole
    for name in ("huggingface_hub.constants", "multitune.storage.hub"):
        monkeypatch.setattr(f"{name}.HF_HUB_OFFLINE", True)
    shutil.rmtree(folder)
    assert load("me/model").tokenizer.get_vocab() == whole


def test_a_tokenizer_whose_files_came_half_is_fetched_whole_or_refused(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert(hub / "model")
    load("me/model")
    for file in ("tokenizer.json", "vocab.txt"):
        for cached in tmp_path.glob(f"cache/*/snapshots/*/{file}"):
            cached.unlink()
    with monkeypatch.context() as offline:
        for name in ("huggingface_hub.constants", "multitune.storage.hub"):
            offline.setattr(f"{name}.HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match=r"^model: 'me/model' has no tokenizer, or its files are not all there"):
            load("me/model")
    assert len(load("me/model").tokenizer) == len(WORDS)


@pytest.mark.parametrize("lacks", ["chat_template.jinja", "generation_config.json"])
def test_what_says_where_answers_end_is_fetched_too(hub: Path, tmp_path: Path, lacks: str) -> None:
    """A cache lacks it where another program, or a classifier, has filled it: a model does without."""
    make(hub / "model")
    settings = hub / "model" / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": [2, 3]}))
    heads = HeadMap.of_all(CausalLM(()))
    encoders.load("me/model", heads, layers=None, dropout=None, seed=0)
    (cached,) = tmp_path.glob(f"cache/*/snapshots/*/{lacks}")
    cached.unlink()
    again = encoders.load("me/model", heads, layers=None, dropout=None, seed=0)
    assert isinstance(again.tokenizer, PreTrainedTokenizerBase)
    assert again.tokenizer.chat_template == TEMPLATE
    assert isinstance(again.model, PreTrainedModel)
    assert again.model.generation_config is not None
    assert again.model.generation_config.eos_token_id == [2, 3]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """As a Trainer saves it that was given none; each word would be the unknown one."""
    folder = bert(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"model' has no tokenizer, or .*save it beside the model, as tokenizer.save_"):
        load(str(folder))


CONFIG = "config.json"
TOLD: dict[str, tuple[dict[str, Any], str]] = {
    "of a newer transformers": (
        {"model_type": "brandnew"},
        "cannot load 'me/model': .*`brandnew`.*hf download me/model",
    ),
    "of a package that is missing": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        "cannot load 'me/model': .*requires bitsandbytes.*; no quantized model can be trained",
    ),
}


@pytest.mark.parametrize(("keys", "message"), TOLD.values(), ids=TOLD)
def test_what_the_hub_has_given_is_not_said_to_be_missing(hub: Path, keys: dict[str, Any], message: str) -> None:
    file = bert(hub / "model") / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    with pytest.raises(UserError, match=f"^model: {message}"):
        load("me/model")


def test_a_repository_without_weights_is_told_as_one(hub: Path) -> None:
    (bert(hub / "model") / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"^model: cannot load 'me/model': me/model does not appear to have a file named"
    ):
        load("me/model")


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="has an adapter alone; name a model"):
        load(str(tmp_path))


class Settings(QuantizationConfigMixin):
    """Of a way to quantize that needs no package."""

    def __init__(self, **_: Any) -> None:
        self.quant_method: Any = "own"


class Quantizer(HfQuantizer):
    """Leaves weights as they are."""

    requires_calibration = False

    @property
    def is_trainable(self) -> bool:
        return False

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return True


def test_a_model_that_stays_quantized_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of its weights would not train."""
    monkeypatch.setitem(AUTO_QUANTIZATION_CONFIG_MAPPING, "own", Settings)
    monkeypatch.setitem(AUTO_QUANTIZER_MAPPING, "own", Quantizer)
    file = bert(tmp_path / "model") / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": "own"}}))
    with pytest.raises(
        UserError, match="model' is quantized, so that it cannot be trained; choose what it was made from"
    ):
        load(str(tmp_path / "model"))

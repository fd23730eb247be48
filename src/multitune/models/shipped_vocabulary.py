"""A shipped model with the embedding rows of some tokens alone, and its tokenizer cut to match.

A text that the whole tokenizer splits into kept tokens is split alike by the cut one:

- WordLevel looks words up.
- Unigram takes the likeliest of all ways to split a word. The cut one has fewer ways, the likeliest among them, and an
  unknown character costs as much as before, since the least likely piece is kept.
- BPE merges the pair of the highest rank. Kept are all merges that lead to a kept token, and those that lead to their
  parts, so that no merge that the text needs is missing; one that it does not need is never in its way.

WordPiece takes the longest piece that fits, and gives a whole word up where the rest has none: without a piece that
misled it the cut one would find another way, so it is refused.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from multitune.errors import UserError
from multitune.models.tokenizers import as_between_calls

State = dict[str, Any]
"""A fast tokenizer as its file has it."""

KEY = "ship_vocabulary"
_PROCESSORS = ("TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel")


class ShippedVocabulary:
    """The tokens that a model ships with.

    Args:
        tokenizer: the whole one.
        token_ids: those that must be kept. Others are kept besides: special and added tokens, single characters and
            bytes, and what the algorithm needs.
        keep_padding: the padding token is to keep its number, from which the model counts positions.

    Raises:
        UserError: the tokenizer is of a kind that cannot be cut without changing what it does.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, token_ids: Iterable[int], *, keep_padding: bool = True
    ) -> None:
        with as_between_calls(tokenizer):
            self._state: State = json.loads(tokenizer.backend_tokenizer.to_str())
        _check(self._state)
        special = [*tokenizer.all_special_ids, *(added["id"] for added in self._state["added_tokens"])]
        up_to_padding = range((tokenizer.pad_token_id or 0) + 1) if keep_padding else ()
        self.token_ids = sorted(_closure(self._state["model"], {*token_ids, *special, *up_to_padding}))
        """The tokens kept, in the whole vocabulary's numbers; their places here are their numbers afterwards."""
        self._row = {token: row for row, token in enumerate(self.token_ids)}

    def cut(self, folder: Path, embedding: str) -> None:
        """Cut the model and the tokenizer that were saved in a folder; ``embedding`` is the name of the matrix."""
        file = folder / "model.safetensors"
        weights = load_file(file)
        weights[embedding] = weights[embedding][self.token_ids].clone()
        save_file(weights, file, metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(self._config(config), indent=2) + "\n", encoding="utf-8")
        text = json.dumps(self.tokenizer(), ensure_ascii=False)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")

    def tokenizer(self) -> State:
        """The cut tokenizer."""
        state = self._state
        added = [one | {"id": self._row[one["id"]]} for one in state["added_tokens"]]
        processor = self._processor(state["post_processor"])
        return state | {"added_tokens": added, "post_processor": processor, "model": self._model(state["model"])}

    def _model(self, model: State) -> State:
        if model["type"] == "Unigram":
            unknown = None if model["unk_id"] is None else self._row[model["unk_id"]]
            known = [token for token in self.token_ids if token < len(model["vocab"])]
            return model | {"vocab": [model["vocab"][token] for token in known], "unk_id": unknown}
        vocabulary = {piece: self._row[token] for piece, token in model["vocab"].items() if token in self._row}
        if model["type"] == "WordLevel":
            return model | {"vocab": vocabulary}
        merges = [pair for pair in model["merges"] if "".join(_pair(pair)) in vocabulary]
        return model | {"vocab": vocabulary, "merges": merges}

    def _processor(self, processor: State | None) -> State | None:
        """What sets special tokens around a text, with their new numbers."""
        if processor is None or processor["type"] == "ByteLevel":
            return processor
        if processor["type"] == "Sequence":
            return processor | {"processors": [self._processor(part) for part in processor["processors"]]}
        if processor["type"] == "TemplateProcessing":
            special = processor["special_tokens"]
            moved = {name: one | {"ids": [self._row[token] for token in one["ids"]]} for name, one in special.items()}
            return processor | {"special_tokens": moved}
        return processor | {name: [processor[name][0], self._row[processor[name][1]]] for name in ("sep", "cls")}

    def _config(self, config: State) -> State:
        """A model's configuration, with the new size and the new numbers of its special tokens."""
        ids = {key: value for key, value in config.items() if key.endswith("_token_id") and value is not None}
        return config | {"vocab_size": len(self.token_ids)} | {key: self._moved(own) for key, own in ids.items()}

    def _moved(self, token: int | list[int]) -> int | list[int] | None:
        """The new number of a token, or those of several that are kept; None of one that is not."""
        if isinstance(token, list):
            return [self._row[each] for each in token if each in self._row]
        return self._row.get(token)


def _check(state: State) -> None:
    model = state["model"]
    kind = model["type"]
    if kind not in ("Unigram", "WordLevel", "BPE") or (kind == "BPE" and model["continuing_subword_prefix"]):
        raise UserError(f"{KEY}: a {kind} tokenizer cannot be cut without changing how it splits texts; set it to full")
    for part in _processors_in(state["post_processor"]):
        if part["type"] not in _PROCESSORS:
            raise UserError(f"{KEY}: the model's tokenizer has a {part['type']}, which cannot be cut; set it to full")


def _processors_in(processor: State | None) -> Iterator[State]:
    if processor is not None and processor["type"] == "Sequence":
        for part in processor["processors"]:
            yield from _processors_in(part)
    elif processor is not None:
        yield processor


def _closure(model: State, token_ids: Collection[int]) -> set[int]:
    """These tokens, and all that the cut tokenizer needs besides."""
    vocabulary = model["vocab"]
    if model["type"] == "Unigram":
        least = min(range(len(vocabulary)), key=lambda token: vocabulary[token][1])
        unknown = [] if model["unk_id"] is None else [model["unk_id"]]
        return {*token_ids, least, *unknown, *_always((piece for piece, _ in vocabulary), range(len(vocabulary)))}
    kept = {*token_ids, *_always(vocabulary, vocabulary.values())}
    if model["unk_token"] in vocabulary:
        kept.add(vocabulary[model["unk_token"]])
    return kept if model["type"] == "WordLevel" else kept | _merged_into(model, kept)


def _always(pieces: Iterable[str], token_ids: Iterable[int]) -> list[int]:
    """Single characters and bytes: with them any text can be split."""
    return [
        token
        for piece, token in zip(pieces, token_ids, strict=True)
        if len(piece) == 1 or (len(piece) == 6 and piece.startswith("<0x"))
    ]


def _merged_into(model: State, kept: Collection[int]) -> set[int]:
    """The tokens that BPE merges on its way to those that are kept."""
    vocabulary = model["vocab"]
    leads: dict[int, list[int]] = {}
    for pair in model["merges"]:
        first, second = _pair(pair)
        leads.setdefault(vocabulary[first + second], []).extend((vocabulary[first], vocabulary[second]))
    parts: set[int] = set()
    waiting = [*kept]
    while waiting:
        token = waiting.pop()
        fresh = {part for part in leads.get(token, ()) if part not in parts}
        parts |= fresh
        waiting += fresh
    return parts


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge

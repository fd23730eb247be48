"""Tokenizers: fast ones, that pad, that read words as running text has them, and that ship as they were."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tokenizers import Tokenizer
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multitune.errors import UserError
from multitune.models.fetching import fetched
from multitune.storage.hub import is_known
from multitune.tasks.task import Processor

CHAT_TEMPLATE = "chat_template.jinja"
"""The file of a tokenizer that not all have."""


@contextmanager
def as_between_calls(processor: Processor) -> Iterator[None]:
    """Inside, a tokenizer neither truncates nor pads by itself: its last call has left that, the next sets its own."""
    if not isinstance(processor, PreTrainedTokenizerBase):
        yield
        return
    backend = processor.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def load_tokenizer(
    name: str, models: Sequence[PreTrainedModel] = (), *, words: bool = False
) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model; of ``words``, one that reads each as it stands in running text, after a blank.

    Args:
        name: of the model.
        models: those that it is for, with their heads.
        words: it is to read words.

    Raises:
        UserError: no such model, no network to fetch it, or no tokenizer beside it.
    """

    def is_whole(loaded: PreTrainedTokenizerBase) -> bool:
        return _has_pieces(loaded) and is_known(name, CHAT_TEMPLATE)

    tokenizer: PreTrainedTokenizerBase = fetched(name, AutoTokenizer.from_pretrained, is_whole)
    if not _has_pieces(tokenizer):
        raise UserError(
            f"model: {name!r} has no tokenizer, or its files are not all there; save it beside the model, as "
            f"tokenizer.save_pretrained does, or fetch all of a model of the Hub: hf download {name}"
        )
    if not tokenizer.is_fast:
        raise UserError(f"model: {name} has no fast tokenizer, which multitune needs for offsets")
    if words and _reads_bytes(tokenizer):
        tokenizer = fetched(name, AutoTokenizer.from_pretrained, add_prefix_space=True)
        _begin_words_with_blanks(tokenizer)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise UserError(f"model: the tokenizer of {name} has neither a padding token nor an end token to pad with")
        tokenizer.pad_token = tokenizer.eos_token  # masked, so that it does not matter which one it is
    if not all(map(_has_token_types, models)):
        names = tokenizer.model_input_names
        tokenizer.model_input_names = [each for each in names if each != "token_type_ids"]
    # An end token that a text spells would be one more, and such a head has to find as many in all rows of a batch.
    tokenizer.split_special_tokens |= any(map(_counts_ends, models))
    return tokenizer


def _has_pieces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer knows pieces of text: without its files transformers makes one of special tokens alone.

    T5's then has a blank's sign, too.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return not tokenizer.is_fast or len(tokenizer.get_vocab().keys() - added) > 1


def tell_of_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Name the tokenizer's padding in a model's configuration, where that has none, or its head looks for its own.

    Decoders classify by the state before the padding that their configuration names, which may be another token.
    """
    config = type(model.config)
    is_decoder = config in MODEL_FOR_CAUSAL_LM_MAPPING and config not in MODEL_FOR_MASKED_LM_MAPPING
    if (is_decoder and _classifies(model)) or model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def _has_token_types(model: PreTrainedModel) -> bool:
    """Whether a model tells the texts of a pair apart; those that do not may fail at types, or take them for words."""
    return any(
        len(weight) > 1
        for name, weight in model.named_parameters()
        if "token_type" in name or name.endswith(".seg_embed")
    )


def _counts_ends(model: PreTrainedModel) -> bool:
    """Whether a head reads the last end token, as BART's and T5's for sequences do."""
    return model.config.is_encoder_decoder and _classifies(model)


def _classifies(model: PreTrainedModel) -> bool:
    return type(model).__name__.endswith("ForSequenceClassification")


def _begin_words_with_blanks(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a byte-level tokenizer set a blank before each word, also where its class does not take the option."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    pre_tokenizer = state["pre_tokenizer"]
    for part in (pre_tokenizer, *pre_tokenizer.get("pretokenizers", ())):
        if part["type"] == "ByteLevel":
            part["add_prefix_space"] = True
    tokenizer.backend_tokenizer.pre_tokenizer = Tokenizer.from_str(json.dumps(state)).pre_tokenizer


def _reads_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer is of RoBERTa's and GPT-2's kind, in whose pieces the blank before a word is a character."""
    pre_tokenizer = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    return any(part["type"] == "ByteLevel" for part in (pre_tokenizer, *pre_tokenizer.get("pretokenizers", ())) if part)

"""Tokenizers of every kind read words as running text has them, and pad."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from multitune.errors import UserError
from multitune.models.tokenizers import load_tokenizer


def byte_level(folder: Path, **special: str) -> Path:
    """A tokenizer of GPT-2's kind, without a padding token, that has merged a few words with the blank before them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(special_tokens=list(special.values()), show_progress=False)
    tokenizer.train_from_iterator(["a red dog saw a blue cat"] * 50, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def test_words_are_read_as_in_running_text(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, eos_token="</s>")
    words = ["red", "dog", "saw"]
    tokenizer, text = load_tokenizer(str(folder), words=True), load_tokenizer(str(folder))
    assert tokenizer(words, is_split_into_words=True)["input_ids"] == text(" red dog saw")["input_ids"]
    tokenizer.save_pretrained(tmp_path / "shipped")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "shipped")
    assert (
        again(words, is_split_into_words=True)["input_ids"] == tokenizer(words, is_split_into_words=True)["input_ids"]
    )
    assert text("red")["input_ids"] != text(" red")["input_ids"]


def test_other_tokenizers_stay_as_they_are(tiny_model: Path) -> None:
    plain, words = load_tokenizer(str(tiny_model)), load_tokenizer(str(tiny_model), words=True)
    assert plain.backend_tokenizer.to_str() == words.backend_tokenizer.to_str()


def test_the_end_token_pads_where_nothing_else_does(tmp_path: Path) -> None:
    assert load_tokenizer(str(byte_level(tmp_path / "a", eos_token="</s>"))).pad_token == "</s>"
    with pytest.raises(UserError, match="neither a padding token nor an end token"):
        load_tokenizer(str(byte_level(tmp_path / "b")))

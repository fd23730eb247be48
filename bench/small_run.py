"""What a run of seconds needs: a small BERT with random weights, and texts to classify."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ("red", "blue", "dog", "cat", "bird", "old", "the", "sees")


def make_model(folder: Path, size: int, intermediate_size: int) -> None:
    """A BERT of two layers with states of ``size`` numbers, and its tokenizer."""
    tokens = {token: number for number, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=intermediate_size,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)


def make_data(folder: Path, languages: Iterable[str], train: int, others: int) -> None:
    """Texts of these languages, classified, in JSONL files; ``others`` are the records of dev, and those of test."""
    folder.mkdir()
    for language in languages:
        for split, count in (("train", train), ("dev", others), ("test", others)):
            rows = ({"text": " ".join((WORDS * 2)[n % 7 : n % 7 + 4]), "label": "xy"[n % 2]} for n in range(count))
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}-{language}.jsonl").write_text(text, encoding="utf-8")

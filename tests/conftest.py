"""A tiny encoder and a tiny PAN-X folder, made here: most tests need no package of weights and no downloaded data."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from builders import SIZES, WORDS, sentences


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they are, whatever terminal the tests are started in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers and 16 dimensions with random weights, without a pooler, and its fast tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = sorted({word for kinds in WORDS.values() for kind in kinds for word in kind})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *(f"never{n}" for n in range(20)), "[MASK]"]
    tokenizer = Tokenizer(models.WordLevel({token: n for n, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **special
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny BERT's configuration with a head for masked tokens, and a tokenizer with a mask."""
    folder = tmp_path_factory.mktemp("tiny-lm")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertForMaskedLM(BertConfig.from_pretrained(tiny_model)).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tiny_model, mask_token="never0").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_panx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PAN-X files for aa and bb (train and dev) and cc (dev alone): names of people and cities between other words."""
    folder = tmp_path_factory.mktemp("tiny-panx")
    for language in WORDS:
        if language in SIZES:
            (folder / f"train-{language}.tsv").write_text(sentences(language, SIZES[language], seed=1))
        (folder / f"dev-{language}.tsv").write_text(sentences(language, 24, seed=2))
    return folder

"""A tiny random Llama, its tokenizer, and texts of two languages that differ in length."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXTS = {"de": "guten tag liebe welt wie geht es dir heute", "sw": "habari dunia"}
SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}


def tokenizer() -> PreTrainedTokenizerFast:
    words = [*SPECIAL.values(), *sorted({word for text in TEXTS.values() for word in text.split()})]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)


def texts(seed: int = 0, size: int = 12) -> Dataset:
    """Half of them are of each language: some or all of its words in random order, ended."""
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(size):
        name = list(TEXTS)[number % 2]
        words = TEXTS[name].split()
        length = int(torch.randint(len(words) // 2, len(words), (), generator=draw)) + 1
        order = torch.randperm(len(words), generator=draw).tolist()[:length]
        rows.append({"language": name, "text": " ".join([*(words[place] for place in order), "<eos>"])})
    return Dataset.from_list(rows)


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer()),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config)

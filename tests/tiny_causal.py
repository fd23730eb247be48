"""Tiny causal language models with random weights, their tokenizer made here, and conversations of two turns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from multitune.data.corpus import Corpus, Record

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Like SmolLM2's: nothing marks what the assistant says."""
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The same text, marked."""
SPECIAL = {"unk_token": "<unk>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
ROOMS = {"aa": ("kitchen", "hall"), "bb": ("küche", "flur"), "cc": ("cocina", "pasillo")}
COMMANDS = {"aa": ("light", "dark"), "bb": ("licht an", "licht aus"), "cc": ("luz sí", "luz no")}


def turns(*contents: str) -> list[dict[str, str]]:
    """The user and the assistant in turn."""
    return [{"role": ("user", "assistant")[number % 2], "content": own} for number, own in enumerate(contents)]


def command(language: str, n: int) -> Record:
    """What is said, and the call that is the answer."""
    on, room = n % 2, n // 2 % 2
    said = f"{COMMANDS[language][on]} {ROOMS[language][room]}"
    return {"messages": turns(said, f'{{"intent": "{("on", "off")[on]}", "area": "{ROOMS[language][room]}"}}')}


def commands() -> Corpus:
    """A few in each of two languages to learn from, and others in three."""
    made = {language: [command(language, n) for n in range(24)] for language in ROOMS}
    train = {language: made[language][:16] for language in ("aa", "bb")}
    dev = {language: made[language][16:20] for language in ("aa", "bb")}
    return Corpus("causal_lm", (), train, dev, {language: rows[20:] for language, rows in made.items()})


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Pieces of bytes, learnt from the commands."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    records = [command(language, n) for language in ROOMS for n in range(4)]
    made.train_from_iterator([turn["content"] for record in records for turn in record["messages"]], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)
    fast.chat_template = template
    return fast


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.1,
}
GROUPED = SIZES | {"num_key_value_heads": 1, "head_dim": 16}
FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": lambda **keys: LlamaConfig(**GROUPED, tie_word_embeddings=True, **keys),
    "qwen3": lambda **keys: Qwen3Config(**GROUPED, **keys),
    "gemma3": lambda **keys: Gemma3TextConfig(**GROUPED, sliding_window=16, query_pre_attn_scalar=16, **keys),
    "mistral": lambda **keys: MistralConfig(**GROUPED, sliding_window=16, **keys),
    "bloom": lambda **keys: BloomConfig(hidden_size=32, n_layer=2, n_head=2, initializer_range=0.1, **keys),
}


def make(folder: Path, family: str = "llama", template: str | None = TEMPLATE) -> Path:
    """A model's folder."""
    fast = tokenizer(template)
    special = {f"{name}_token_id": getattr(fast, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = FAMILIES[family](vocab_size=len(fast), **special)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def answer(model: Any, tokenizer: Any, *messages: dict[str, str]) -> str:
    """What a model answers greedily to a conversation."""
    given = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    inputs = tokenizer.apply_chat_template(list(messages), **given)
    said = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(said, skip_special_tokens=True))


def loaded(folder: Path) -> Any:
    """The causal language model in a folder; all of its weights are there, and nothing else is."""
    model, info = cast("tuple[Any, Any]", AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True))
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model

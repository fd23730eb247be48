"""Positions of a model's tokens: how many there are, and that no example has more."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    BloomConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    PretrainedConfig,
    RobertaConfig,
    T5Config,
)

from multitune.models.positions import positions

SMALL: dict[str, Any] = {
    "vocab_size": 20,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
}
BOTH: dict[str, Any] = {"vocab_size": 20, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8}
BOTH |= {"decoder_ffn_dim": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
MODELS: dict[str, tuple[PretrainedConfig, int | None]] = {
    "BERT": (BertConfig(**SMALL, max_position_embeddings=64), 64),
    "RoBERTa": (RobertaConfig(**SMALL, max_position_embeddings=66, pad_token_id=1), 64),
    "DistilBERT": (DistilBertConfig(vocab_size=20, dim=8, n_heads=2, n_layers=1, max_position_embeddings=64), 64),
    "GPT-2": (GPT2Config(vocab_size=20, n_embd=8, n_head=2, n_layer=1, n_positions=64), 64),
    "BART": (BartConfig(**BOTH, max_position_embeddings=64), 64),
    "Marian": (MarianConfig(**BOTH, max_position_embeddings=64, pad_token_id=3, decoder_start_token_id=3), 64),
    "T5": (T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2), None),
    "DeBERTa": (DebertaV2Config(**SMALL, position_biased_input=False, relative_attention=True), None),
    "BLOOM": (BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=2), None),
    "Llama": (LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=64), None),
}


# Old transformers compile parts of DeBERTa with torch.jit.script, which torch now warns of.
@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")
@pytest.mark.parametrize(("config", "room"), MODELS.values(), ids=MODELS)
def test_positions_are_those_that_a_forward_pass_has(config: PretrainedConfig, room: int | None) -> None:
    model = AutoModel.from_config(config).eval()
    assert positions(model) == room

    def run(length: int) -> None:
        ids = torch.full((1, length), 5)
        more = {"decoder_input_ids": ids[:, :2]} if config.is_encoder_decoder else {}
        model(input_ids=ids, **more)

    run(room or 80)
    if room is not None:
        with pytest.raises((IndexError, RuntimeError)):
            run(room + 1)

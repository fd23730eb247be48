"""Vocabulary trimming loses nothing: the same model comes out, other rows bit-identical."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BartConfig,
    BigBirdConfig,
    BigBirdForQuestionAnswering,
    MT5Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
)

from multitune.errors import UserError
from multitune.models.vocabulary import TrimmedVocabulary

BATCHES = [torch.tensor([[2, 5, 9, 3], [2, 12, 3, 0]]), torch.tensor([[2, 9, 9, 3], [2, 5, 12, 3]])]
MATRIX = "bert.embeddings.word_embeddings.weight"
USED = {2, 3, 5, 9, 12}


def model(folder: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    network: PreTrainedModel = AutoModelForTokenClassification.from_pretrained(folder, num_labels=3)
    return network


def rows(network: PreTrainedModel) -> int:
    return len(network.get_parameter(MATRIX))


def trained(folder: Path, trim: bool) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Five clipped AdamW steps; weights with the full matrix, and the losses."""
    network = model(folder)
    vocabulary = TrimmedVocabulary(network, USED) if trim else None
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(5):
        ids = BATCHES[step % 2]
        inputs = vocabulary.rows(ids) if vocabulary else ids
        logits = network(input_ids=inputs, attention_mask=(ids != 0).long()).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), (ids % 3).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    if vocabulary is None:
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}, losses
    with vocabulary.full():
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}, losses


def test_trimmed_and_untrimmed_training_give_the_same_model(tiny_model: Path) -> None:
    (whole, losses), (trimmed, trimmed_losses) = trained(tiny_model, trim=False), trained(tiny_model, trim=True)
    assert trimmed_losses == pytest.approx(losses, rel=1e-6)
    assert whole.keys() == trimmed.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(trimmed[name], weight, rtol=1e-5, atol=1e-7)


def test_rows_that_never_train_are_bit_identical(tiny_model: Path) -> None:
    before, (after, _) = model(tiny_model).state_dict()[MATRIX], trained(tiny_model, trim=True)
    unused = [row for row in range(len(before)) if row not in USED]
    assert torch.equal(after[MATRIX][unused], before[unused])
    assert not torch.equal(after[MATRIX][sorted(USED)], before[sorted(USED)])


def test_padding_keeps_its_number_and_full_is_left_again(tiny_model: Path) -> None:
    network = model(tiny_model)
    whole = rows(network)
    vocabulary = TrimmedVocabulary(network, USED)
    assert vocabulary.rows(torch.tensor([0])) == 0
    assert rows(network) == len(USED | {0})
    with vocabulary.full():
        assert rows(network) == whole
    assert rows(network) == len(USED | {0})


def test_an_output_layer_that_shares_the_matrix_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="trim_vocabulary"):
        TrimmedVocabulary(AutoModelForMaskedLM.from_pretrained(tiny_model), USED)


ENDS: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 39}
PADDED: dict[str, Any] = ENDS | {"pad_token_id": 38, "decoder_start_token_id": 38}
BART: dict[str, Any] = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 16,
    "intermediate_size": 16,
}


@pytest.mark.parametrize(
    "config",
    [
        Qwen3Config(num_key_value_heads=1, head_dim=8, **SIZES, **ENDS, pad_token_id=None),
        MT5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, **PADDED),
        BartConfig(vocab_size=40, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **BART, **ENDS, pad_token_id=0),
    ],
    ids=["looks for its padding", "looks for its end, twice embedded", "begins with a token, twice embedded"],
)
def test_heads_and_decoders_find_special_tokens_among_the_rows(config: PretrainedConfig) -> None:
    """A classifier of the last token, or of the end token, sees the same one; both stacks read the same rows."""
    torch.manual_seed(0)
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    if network.config.pad_token_id is None:
        network.config.pad_token_id = 38  # the tokenizer's own
    padding = network.config.pad_token_id
    ids = torch.tensor([[5, 9, 12, 39], [7, 39, padding, padding]])
    given, before = {"attention_mask": (ids != padding).long()}, network.config.to_dict()
    with torch.no_grad():
        whole = network(input_ids=ids, **given).logits
        vocabulary = TrimmedVocabulary(network, set(ids.flatten().tolist()))
        torch.testing.assert_close(network(input_ids=vocabulary.rows(ids), **given).logits, whole)
        with vocabulary.full():
            torch.testing.assert_close(network(input_ids=ids, **given).logits, whole)
            assert network.config.to_dict() == before
    vocabulary.undo()
    assert network.config.to_dict() == before


def test_modules_that_keep_a_special_tokens_number_find_it_among_the_rows() -> None:
    """BigBird's head for answers leaves the question out, up to the first separator."""
    torch.manual_seed(0)
    network = BigBirdForQuestionAnswering(
        BigBirdConfig(**SIZES, attention_type="original_full", pad_token_id=0, sep_token_id=30)
    ).eval()
    ids = torch.tensor([[2, 9, 12, 30, 14, 15, 30], [2, 16, 30, 7, 14, 30, 0]])
    given = {"attention_mask": (ids != 0).long()}
    with torch.no_grad():
        whole = network(input_ids=ids, **given).start_logits
        vocabulary = TrimmedVocabulary(network, set(ids.flatten().tolist()))
        torch.testing.assert_close(network(input_ids=vocabulary.rows(ids), **given).start_logits, whole)
        with vocabulary.full():
            torch.testing.assert_close(network(input_ids=ids, **given).start_logits, whole)


def test_a_padding_token_with_a_large_number_keeps_no_other_rows() -> None:
    """As Llama 3's, behind 128000 words; no position is counted from it."""
    config = Qwen3Config(num_key_value_heads=1, head_dim=8, **SIZES, **ENDS, pad_token_id=38)
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    vocabulary, reader = TrimmedVocabulary(network, {5}), network.get_input_embeddings()
    assert vocabulary.token_ids.tolist() == [2, 5, 38, 39]
    assert isinstance(reader, torch.nn.Embedding)
    assert reader.padding_idx == 2
    with vocabulary.full():
        assert reader.padding_idx == 38


def test_rows_up_to_the_padding_stay_where_positions_are_counted_from_it() -> None:
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(RobertaConfig(**SIZES, pad_token_id=7))
    assert TrimmedVocabulary(network, {9}).token_ids.tolist() == [*range(8), 9]

"""Vocabulary trimming loses nothing: the same model comes out, other rows bit-identical."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification, PreTrainedModel

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

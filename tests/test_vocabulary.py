"""Vocabulary trimming loses nothing: the same model comes out, other rows bit-identical."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from multitune.errors import UserError
from multitune.models.vocabulary import TrimmedVocabulary

BATCHES = [torch.tensor([[2, 5, 9, 3], [2, 12, 3, 0]]), torch.tensor([[2, 9, 9, 3], [2, 5, 12, 3]])]
USED = {2, 3, 5, 9, 12}


def model(folder: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForTokenClassification.from_pretrained(folder, num_labels=3)


def trained(folder: Path, trim: bool) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Five clipped AdamW steps; weights with the full matrix, and the losses."""
    network = model(folder)
    vocabulary = TrimmedVocabulary(network, USED) if trim else None
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(5):
        ids = BATCHES[step % 2]
        rows = torch.tensor([vocabulary.rows(line) for line in ids.tolist()]) if vocabulary else ids
        logits = network(input_ids=rows, attention_mask=(ids != 0).long()).logits
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
    name = "bert.embeddings.word_embeddings.weight"
    before, (after, _) = model(tiny_model).state_dict()[name], trained(tiny_model, trim=True)
    unused = [row for row in range(len(before)) if row not in USED]
    assert torch.equal(after[name][unused], before[unused])
    assert not torch.equal(after[name][sorted(USED)], before[sorted(USED)])


def test_padding_keeps_its_number_and_full_is_left_again(tiny_model: Path) -> None:
    network = model(tiny_model)
    vocabulary = TrimmedVocabulary(network, USED)
    assert vocabulary.rows([0]) == [0]
    assert len(network.get_input_embeddings().weight) == len(USED | {0})
    with pytest.raises(KeyError), vocabulary.full():
        assert len(network.get_input_embeddings().weight) > 30
        raise KeyError
    assert len(network.get_input_embeddings().weight) == len(USED | {0})


def test_an_output_layer_that_shares_the_matrix_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="trim_vocabulary"):
        TrimmedVocabulary(AutoModelForMaskedLM.from_pretrained(tiny_model), USED)

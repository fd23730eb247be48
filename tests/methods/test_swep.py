"""SWEP against its equations written out with inputs_embeds, on small encoders of Hugging Face."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    FunnelConfig,
    FunnelForSequenceClassification,
    LongformerConfig,
    LongformerForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from multitune.errors import UserError
from multitune.methods.swep import SWEP, gaussian_divergence

SIZES: dict[str, Any] = {"vocab_size": 30, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LABELS = torch.tensor([0, 1, 1])


def bert() -> Any:
    return BertForSequenceClassification(BertConfig(hidden_size=8, **SIZES, **DROPOUT))


def electra() -> Any:
    return ElectraForSequenceClassification(ElectraConfig(hidden_size=8, embedding_size=4, **SIZES, **DROPOUT))


def xlm_roberta() -> Any:
    config = XLMRobertaConfig(hidden_size=8, max_position_embeddings=20, pad_token_id=1, **SIZES, **DROPOUT)
    return XLMRobertaForSequenceClassification(config)


MODELS = [(bert, 8), (electra, 4), (xlm_roberta, 8)]


def built(make: Callable[[], Any], *, train: bool = True) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().train(train)


def swep_for(size: int, seed: int = 0) -> SWEP:
    return SWEP(8, size, generator=torch.Generator().manual_seed(seed))


def inputs() -> dict[str, Tensor]:
    """Three texts of 6, 4 and 2 tokens, padded on the right with 1."""
    ids = torch.randint(2, 30, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(6) < torch.tensor([[6], [4], [2]])).long()
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}


def nll(output: Any) -> Tensor:
    return cross_entropy(output.logits, LABELS)


def by_the_equations(swep: SWEP, model: Any, batch: Mapping[str, Tensor], epsilon: Tensor) -> Tensor:
    """As the authors write it, with inputs_embeds and a distribution's own divergence."""
    mask = batch["attention_mask"]
    with torch.no_grad():
        h = model.base_model(**batch).last_hidden_state
    mu, log_variance = swep.mlp(h).chunk(2, -1)
    sigma = (0.5 * log_variance).exp()
    e = model.get_input_embeddings()(batch["input_ids"])
    clean = nll(model(inputs_embeds=e, attention_mask=mask))
    noisy = nll(model(inputs_embeds=e * (mu + sigma * epsilon), attention_mask=mask))
    prior = Normal(torch.ones(()), torch.tensor((0.1 / 0.9) ** 0.25))
    divergence = kl_divergence(Normal(mu, sigma), prior).sum(-1)
    return 0.5 * (clean + noisy) + (divergence * mask).sum() / mask.sum()


@pytest.mark.parametrize(("make", "size"), MODELS)
def test_loss_and_gradients_are_those_of_the_equations(make: Callable[[], Any], size: int) -> None:
    ours, theirs, a, b = built(make), built(make), swep_for(size), swep_for(size)
    loss = a.loss(ours, inputs(), nll)
    # The generator has drawn the two layers' weights when epsilon's turn comes.
    epsilon = torch.randn(3, 6, size, generator=b._generator)
    expected = by_the_equations(b, theirs, inputs(), epsilon)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.backward()
    for p, q in zip([*ours.parameters(), *a.parameters()], [*theirs.parameters(), *b.parameters()], strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "size"), MODELS)
def test_at_evaluation_it_is_the_clean_model(make: Callable[[], Any], size: int) -> None:
    model, swep = built(make), swep_for(size)
    before = model(**inputs()).logits
    swep.loss(model, inputs(), nll)
    assert torch.equal(model(**inputs()).logits, before)
    assert torch.equal(swep.eval().loss(model, inputs(), nll), nll(model(**inputs())))


def test_noise_is_removed_when_the_loss_fails() -> None:
    model, swep = built(bert), swep_for(8)
    before = model(**inputs()).logits

    def fail(_output: Any) -> Tensor:
        raise KeyError("no such label")

    with pytest.raises(KeyError):
        swep.loss(model, inputs(), fail)
    assert torch.equal(model(**inputs()).logits, before)


def funnel() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 30, "d_model": 8, "n_head": 2, "d_head": 4, "d_inner": 12}
    return FunnelForSequenceClassification(FunnelConfig(block_sizes=[1, 1], num_decoder_layers=1, **sizes))


def longformer() -> Any:
    sizes = SIZES | DROPOUT | {"max_position_embeddings": 20, "pad_token_id": 1}
    return LongformerForSequenceClassification(LongformerConfig(hidden_size=8, attention_window=4, **sizes))


@pytest.mark.parametrize("make", [funnel, longformer])
def test_a_model_with_other_states_than_embeddings_is_refused_in_a_line(make: Callable[[], Any]) -> None:
    model = built(make)
    with pytest.raises(UserError, match=f"^method: swep needs .*, and {type(model.base_model).__name__} pools states"):
        swep_for(8).loss(model, inputs(), nll)
    assert model(**inputs()).logits.isfinite().all(), "the embeddings are its own again"


def test_no_gradient_flows_into_the_encoder_through_its_hidden_states() -> None:
    model, swep = built(bert), swep_for(8)
    mu, log_variance = swep.noise(model, inputs())
    (mu.sum() + log_variance.sum()).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in swep.parameters())


def test_padding_on_the_left_does_not_change_the_noisy_loss_of_xlm_roberta() -> None:
    """Its positions count from the first real token, which inputs_embeds cannot tell."""
    model = built(xlm_roberta)
    right = {"input_ids": torch.tensor([[5, 6, 7, 1, 1]]), "attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}
    left = {name: tensor.roll(2, dims=1) for name, tensor in right.items()}
    swep = swep_for(8)
    # mu = 1.5 and sigma = 0 everywhere, so that no draw tells the two paddings apart.
    weight, bias = list(swep.mlp.parameters())[2:]
    with torch.no_grad():
        weight.zero_()
        bias.copy_(torch.tensor([1.5] * 8 + [-60.0] * 8))

    losses = [swep.loss(model, batch, lambda output: output.logits[0, 0]) for batch in (right, left)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prior_variance", [1e-3, 1.0 / 3.0, 50.0])
def test_divergence_is_the_closed_form_of_torch(prior_variance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mu, log_variance = torch.randn(2, 2, 5, 7, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    prior = Normal(torch.ones((), dtype=torch.float64), torch.tensor(prior_variance, dtype=torch.float64).sqrt())
    per_token = kl_divergence(Normal(mu, (0.5 * log_variance).exp()), prior).sum(-1)
    expected = per_token[mask == 1].mean()
    torch.testing.assert_close(
        gaussian_divergence(mu, log_variance, prior_variance, mask), expected, rtol=1e-12, atol=0
    )


def test_divergence_of_the_prior_itself_is_zero() -> None:
    mu, mask = torch.ones(1, 3, 4, dtype=torch.float64), torch.ones(1, 3)
    log_variance = torch.full_like(mu, 0.25).log()
    assert gaussian_divergence(mu, log_variance, 0.25, mask).abs() < 1e-14


def test_draws_nothing_from_the_global_generator() -> None:
    model = built(bert)
    before = torch.get_rng_state()
    swep_for(8).loss(model, inputs(), nll)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: SWEP(8, p=0.0, generator=torch.Generator()), "p=0.0"),
        (lambda: SWEP(8, p=1.0, generator=torch.Generator()), "p=1.0"),
        (lambda: swep_for(8).loss(built(bert), {"input_ids": inputs()["input_ids"]}, nll), "attention_mask"),
    ],
)
def test_mistakes_are_explained(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()

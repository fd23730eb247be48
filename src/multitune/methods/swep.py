"""SWEP: learned, input-dependent noise on the word embeddings, as a loss for any encoder."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from multitune.errors import UserError


class EmbeddingModel(Protocol):
    """What SWEP needs of a model; every encoder of Hugging Face, with or without a head, has it."""

    @property
    def base_model(self) -> Callable[..., Any]:
        """The encoder; the first thing that it returns is the last hidden states [batch, length, hidden_size]."""

    def get_input_embeddings(self) -> nn.Module:
        """The module that turns token ids [batch, length] into embeddings [batch, length, embedding_size]."""

    def __call__(self, **inputs: Any) -> Any:
        """The forward pass."""


def gaussian_divergence(mu: Tensor, log_variance: Tensor, prior_variance: float, mask: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(1, prior_variance)), summed over dimensions, averaged over unmasked tokens.

    Args:
        mu, log_variance: [batch, length, embedding_size].
        prior_variance: sigma_0^2.
        mask: [batch, length], non-zero where a token counts.

    Returns:
        A scalar, in nats per token.
    """
    ratio = (log_variance.exp() + (mu - 1.0).square()) / prior_variance
    per_token = 0.5 * (math.log(prior_variance) - log_variance + ratio - 1.0).sum(dim=-1)
    counts = mask.bool()
    return torch.where(counts, per_token, 0.0).sum() / counts.sum()


@final
class SWEP(nn.Module):
    """Stochastic word embedding perturbation, Lee et al., ACL 2021, arXiv 2105.02692; where silent, the authors' code.

    h = encoder(x) without gradient; (mu, log sigma^2) = MLP(h); z = mu + sigma epsilon multiplies the input embeddings;
    loss = (NLL_clean + NLL_noisy) / 2 + KL(q || N(1, sqrt(p / (1 - p)))), the second number a variance.

    The module is the MLP alone: train its parameters with the model's. It keeps no hold on the model, and inference
    uses the model as it is. A step costs three forward and two backward passes. ``state_dict()`` includes the state of
    the generator.

    Departure: the authors pass z times the embeddings as ``inputs_embeds``; here the embedding module's output is
    multiplied during the noisy pass. That is the same product, but models of the RoBERTa family keep their position
    ids, which only ``input_ids`` tell where padding stands on the left.

    Args:
        hidden_size: of the encoder's last hidden states.
        embedding_size: of the input embeddings; default hidden_size (ELECTRA and ALBERT have smaller ones).
        p: the dropout probability that the prior is made to resemble, in (0, 1).
        generator: draws the MLP's initial weights, and epsilon; where the model is on another device than it, the seeds
            of generators there.

    Raises:
        ValueError: p outside (0, 1).
    """

    def __init__(
        self, hidden_size: int, embedding_size: int | None = None, *, p: float = 0.1, generator: torch.Generator
    ) -> None:
        super().__init__()
        if not 0.0 < p < 1.0:
            raise ValueError(f"p={p}: choose a probability above 0 and below 1 (the authors: 0.1)")
        size = embedding_size or hidden_size
        self.mlp = nn.Sequential(_linear(hidden_size, size, generator), nn.ReLU(), _linear(size, 2 * size, generator))
        self.prior_variance = math.sqrt(p / (1.0 - p))
        self._generator = generator

    def loss(
        self,
        model: EmbeddingModel,
        inputs: Mapping[str, Any],
        loss_fn: Callable[[Any], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The training loss of one batch; in evaluation mode (``swep.eval()``) the model's own loss.

        Args:
            model: called as ``model(**inputs)``, and first ``model.base_model(**inputs)`` for h.
            inputs: the model's inputs without labels; ``attention_mask`` [batch, length] must be among them.
            loss_fn: turns what the model returns into a scalar, e.g. ``lambda out: cross_entropy(out.logits, labels)``.
            generator: draws this batch's epsilon in the place of the module's own, so that it does not depend on which
                batches came before.

        Raises:
            ValueError: no attention mask, or a model that pools states (Funnel) or fills rows up itself (Longformer).
        """
        if not self.training:
            return loss_fn(model(**inputs))
        if "attention_mask" not in inputs:
            raise ValueError("SWEP averages over unmasked tokens: put attention_mask [batch, length] into the inputs")
        mu, log_variance = self.noise(model, inputs)
        own = _on(mu.device, generator or self._generator)
        epsilon = torch.randn(mu.shape, generator=own, device=mu.device, dtype=mu.dtype)
        with _scaled_embeddings(model, mu + epsilon * torch.exp(0.5 * log_variance)):
            noisy = loss_fn(model(**inputs))
        clean = loss_fn(model(**inputs))
        divergence = gaussian_divergence(mu, log_variance, self.prior_variance, inputs["attention_mask"])
        return 0.5 * (clean + noisy) + divergence

    def noise(self, model: EmbeddingModel, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """mu and log sigma^2 of each input embedding, both [batch, length, embedding_size]."""
        with torch.no_grad():
            hidden = model.base_model(**inputs)[0]
        mu, log_variance = self.mlp(hidden).chunk(2, dim=-1)
        return mu, log_variance

    def get_extra_state(self) -> Tensor:
        """The generator's state, which ``state_dict()`` includes."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue with the generator's state of ``state_dict()``."""
        self._generator.set_state(state.cpu())  # torch.load(map_location=...) may have moved it


@contextmanager
def _scaled_embeddings(model: EmbeddingModel, scale: Tensor) -> Iterator[None]:
    """Within this context the model's input embeddings come out multiplied by ``scale``.

    Raises:
        UserError: a forward pass has more of them, or fewer.
    """

    def multiply(_module: nn.Module, _inputs: Any, embeddings: Tensor) -> Tensor:
        if embeddings.shape != scale.shape:
            name = type(model.base_model).__name__
            raise UserError(
                f"method: swep needs a last hidden state for each word embedding, and {name} pools states or fills "
                f"rows up by itself; choose another method or model"
            )
        return embeddings * scale

    handle = model.get_input_embeddings().register_forward_hook(multiply)
    try:
        yield
    finally:
        handle.remove()


def _on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """The generator, or where it is of another device a new one of this device, seeded by its next draw."""
    if generator.device == device:
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """nn.Linear with the initialisation of its class, drawn from ``generator`` and not from the global one."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device=generator.device)
    bound = 1.0 / math.sqrt(inputs)
    for weights in layer.parameters():
        nn.init.uniform_(weights, -bound, bound, generator=generator)
    return layer

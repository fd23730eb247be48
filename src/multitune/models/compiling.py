"""The layers of a model as torch.compile makes them: fewer kernels, and on a card one launch for all those of a layer.

Ansel et al., "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph Compilation",
ASPLOS 2024. The layers of a model are alike, and sizes of batches are symbols, so that what is compiled once serves all
layers and batches. What stands around layers stays as it is: embeddings, masks, heads, losses. So do passes that do not
train.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedTokenizerBase

from multitune.errors import UserError
from multitune.models.encoder import Encoder
from multitune.models.masks import padding_is
from multitune.models.precision import autocast
from multitune.models.sharding import layers
from multitune.recipe import Recipe
from multitune.screen.stages import stage
from multitune.seeds import global_draws
from multitune.tasks.task import filled_up

NEVER_BESIDE = ("gradient_checkpointing", "packing", "shard")
"""Keys of a recipe that change what happens within a layer."""
LEAST, SHARES = 16, 8
"""On a card: what two lengths of batches differ by, at least, and as a share of the next power of two."""
FIRST_LENGTHS = (64, 48, 32, 24, 16, 8)
"""Lengths that the first batch may have: another number than its examples', since torch takes equal sizes for one."""


def check(recipe: Recipe) -> None:
    """Make sure that the layers of a recipe's model may be compiled.

    Raises:
        UserError: another key or the device forbids it.
    """
    if not recipe.compile:
        return
    for key in NEVER_BESIDE:
        if getattr(recipe, key):
            raise UserError(f"compile: cannot stand beside {key}; set one of them to false")
    if recipe.device == "mps":
        raise UserError("compile: is for device cpu or cuda, not for mps; set it to false")


def length_of_rows(longest: int) -> int:
    """The length of batches on a card whose longest text has so many tokens, padding included.

    CUDA graphs are recorded for each length anew: there are eight up to 128 tokens, and four more up to 256.
    """
    step = max(LEAST, (1 << (longest - 1).bit_length()) // SHARES)
    return -(-longest // step) * step


class CompiledLayers:
    """The layers of an encoder, compiled for a first batch that is none of the run's.

    It is always the same, so that what torch makes of it does not depend on where a run resumes.

    Args:
        encoder: with all that trains in its place.
        batch_size: examples in most batches.
        precision: of the forward pass.
        whole_batches: no gradient adds up over several backward passes. Only then are there CUDA graphs: what they have
            computed is gone when they run again.

    Raises:
        UserError: the model is no encoder of text or causal language model, or torch cannot compile it here.
    """

    def __init__(self, encoder: Encoder, batch_size: int, precision: str, *, whole_batches: bool) -> None:
        self._encoder = encoder
        self._graphs = whole_batches and encoder.device.type == "cuda"
        body = encoder.model.base_model
        if encoder.model.config.is_encoder_decoder or not isinstance(encoder.tokenizer, PreTrainedTokenizerBase):
            raise UserError(
                f"compile: is for encoders of text and causal language models, not for {type(body).__name__}; set it "
                "to false"
            )
        torch.compiler.reset()  # an earlier run's, of which this one would take what was made for other sizes
        for layer in layers(encoder.model):
            _compile(layer, "reduce-overhead" if self._graphs else None)
        try:
            self._first_batch(batch_size, precision)
        except TorchDynamoException as error:
            raise UserError(f"compile: {_why(error)}; set it to false") from error

    def filling_up(self) -> AbstractContextManager[None]:
        """A context in which batches are collated as long as layers want them."""
        return filled_up(self._length)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, the loss of a mini-batch is computed; CUDA graphs may overwrite what an earlier one has left."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        config = self._encoder.model.config
        cached = getattr(config, "use_cache", False)
        if cached:  # a layer would have its number in the cache compiled in
            config.use_cache = False
        try:
            yield
        finally:
            if cached:
                config.use_cache = cached

    def _length(self, longest: int) -> int:
        return max(longest, self._encoder.room_for(length_of_rows(longest))) if self._graphs else longest

    def _first_batch(self, batch_size: int, precision: str) -> None:
        """Compile what a step of training needs; weights, gradients and generators stay as they are."""
        device, body = self._encoder.device, self._encoder.model.base_model
        length = next(own for own in FIRST_LENGTHS if own != batch_size and own <= self._encoder.room_for(own))
        ones = torch.ones(batch_size, length, dtype=torch.long, device=device)
        with global_draws(0, device), autocast(device, precision), padding_is(True), self.computing():
            states: Tensor = body(input_ids=0 * ones, attention_mask=ones).last_hidden_state
        if states.requires_grad:
            states.float().square().mean().backward()
        for weight in body.parameters():
            weight.grad = None


def compiled(recipe: Recipe, encoder: Encoder, precision: str) -> CompiledLayers | None:
    """The layers of a run's encoder, where its recipe has them compiled; raises as ``CompiledLayers`` does."""
    if not recipe.compile:
        return None
    size = recipe.micro_batch_size
    with stage("compiling the layers"):
        return CompiledLayers(encoder, size or recipe.batch_size, precision, whole_batches=size is None)


def _compile(layer: nn.Module, mode: str | None) -> None:
    """Let a layer that trains be computed as torch compiles it; no weight gets another name."""
    plain: Callable[..., Any] = layer.forward
    in_training = torch.compile(plain, dynamic=True, mode=mode)

    def forward(*inputs: Any, **options: Any) -> Any:
        trains = layer.training and torch.is_grad_enabled()
        return (in_training if trains else plain)(*inputs, **options)

    layer.forward = forward


def _why(error: TorchDynamoException) -> str:
    cause = getattr(error, "inner_exception", error)  # Triton's lack is told without one
    if type(cause).__name__ == "InvalidCxxCompiler":
        return "needs a C++ compiler, such as g++, and this machine has none"
    return f"torch cannot compile the layers here ({type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]})"

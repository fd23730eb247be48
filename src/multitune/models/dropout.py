"""Dropout that is quick on a CPU, where torch draws its masks one number at a time: a fifth of a training step.

Sixteen random bits decide about an element, four elements to one draw of torch's generator. The probability is thereby
a multiple of 2^-16; survivors are scaled by its exact inverse, so that the expectation is the input's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from multitune.models.masks import mask

LEVELS = 2**16
ATTENTION = "multitune_sdpa"
"""The name under which transformers knows ``attention``."""
PROBABILITIES = ("dropout", "dropout_prob", "dropout_rate", "pdrop")
"""How the names of dropout probabilities end: T5's is ``dropout_rate``, GPT-2 has ``resid_pdrop``."""
OF_LAYERS = ("layerdrop", "drop_path_rate")
"""How those of probabilities end that whole layers are left out."""


class QuickDropout(nn.Dropout):
    """``nn.Dropout`` with masks of ``thinned``."""

    def forward(self, input: Tensor) -> Tensor:  # the name is nn.Dropout's
        return thinned(input, self.p) if self.training else input


def thinned(values: Tensor, p: float) -> Tensor:
    """Each value 0 with probability ``p`` (rounded to 2^-16), else scaled up; draws from torch's global generator.

    Where torch compiles it, it is torch's own dropout, which becomes a part of the kernels around it.
    """
    if torch.compiler.is_compiling():
        return nn.functional.dropout(values, p)
    dropped = round(p * LEVELS)
    if dropped == 0:
        return values
    if dropped == LEVELS:
        return values * 0
    draws = torch.empty((values.numel() + 3) // 4, dtype=torch.int64, device=values.device)
    draws.random_(torch.iinfo(torch.int64).min, None)
    bits = draws.view(torch.int16)[: values.numel()].view(values.shape)
    # Written as numbers at once: making booleans first and numbers of them costs four times as much.
    scale = torch.ge(bits, dropped - LEVELS // 2, out=torch.empty_like(bits, dtype=values.dtype))
    return values * scale.mul_(LEVELS / (LEVELS - dropped))


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' ``sdpa`` attention; where it would drop weights on a CPU, written out with masks of ``thinned``.

    What is not written out is computed in fp32 where a CPU would take bf16 (``in_bf16``).

    query, key, value: [batch, heads, length, size]; attention_mask: booleans, True where a key is to be seen. Returns
    [batch, length, heads, size].
    """
    known = (attention_mask is None or attention_mask.dtype == torch.bool) and options.get("position_bias") is None
    causal = options.get("is_causal", getattr(module, "is_causal", True))
    on_cpu = query.device.type == "cpu"
    if dropout == 0 or not on_cpu or not known or causal or key.shape != query.shape:
        if not (known and in_bf16(query)):
            return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
        with torch.autocast("cpu", enabled=False):
            q, k, v = query.float(), key.float(), value.float()
            states, _ = sdpa_attention_forward(module, q, k, v, attention_mask, dropout, scaling, **options)
        return states.to(query.dtype), None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    states = written_out(query, key, value, attention_mask, dropout, scale)
    return states.transpose(1, 2).contiguous(), None


def written_out(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, dropout: float, scale: float) -> Tensor:
    """Attention as its formula stands, with weights dropped out by ``thinned``.

    query, key, value and what is returned: [..., length, size]; seen: booleans, True where a key is to be seen.
    """
    scores = (query * scale) @ key.transpose(-1, -2)
    if seen is not None:
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return thinned(scores.softmax(-1), dropout) @ value


def in_bf16(states: Tensor) -> bool:
    """Whether these are on a CPU and in bf16, or would be made so by autocast.

    torch's attention takes two to four times as long there as in fp32, since its backward pass is slow without AMX.
    """
    if states.device.type != "cpu":
        return False
    casts = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return states.dtype == torch.bfloat16 or casts


def use_own_layers(model: PreTrainedModel, device: torch.device) -> None:
    """Give a model this package's attention, and on a CPU its dropout."""
    if device.type == "cpu":
        use_quick_dropout(model)
    else:
        use_attention(model)


def use_quick_dropout(model: PreTrainedModel) -> None:
    """Give a model on the CPU this dropout, in its modules and its attention."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, QuickDropout(child.p).train(child.training))
    use_attention(model)


def use_attention(model: PreTrainedModel) -> None:
    """Give a model with exchangeable attention ``attention``, and the masks of ``multitune.models.masks``."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, mask)
        model.set_attn_implementation(ATTENTION)


def set_dropout(config: Any, dropout: float) -> None:
    """Let every dropout probability that a configuration names be this one; with 0, no layer is left out either."""
    names = PROBABILITIES if dropout else (*PROBABILITIES, *OF_LAYERS)
    for key, value in config.to_dict().items():
        follows = value is None and key == "classifier_dropout"  # it is that of the rest then
        if key.endswith(names) and not isinstance(value, bool) and not follows:
            setattr(config, key, dropout)


def set_dropout_of_modules(model: nn.Module, dropout: float) -> None:
    """Let dropout that no configuration names be this one: transformers' classifiers of decoders' tokens have 0.1."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout

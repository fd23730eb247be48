"""Decay toward the weights that training began with, before each step of any optimizer.

Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018, arXiv 1802.01483,
L2-SP: the penalty alpha / 2 |w - w0|^2 on the weights that pretraining left, w0 (the paper has another on new weights).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from multitune.methods.sharded import shards

ROUNDING = 1e-9
"""What lr times alpha may be above 1: a scheduler multiplies rates."""


def anchor(optimizer: Optimizer, parameters: Iterable[Tensor], alpha: float) -> RemovableHandle:
    """Let each step of an optimizer begin with w <- w + lr alpha (w0 - w), w0 the present weights.

    Decoupled from the gradient, as AdamW's weight decay is: Adam would divide the penalty's gradient by the size of the
    task's. lr is that of the parameter's group at the step. A parameter without a gradient stays where it is. Memory:
    w0. No state dict has it: to resume, call this again with the weights that training began with.

    With a two-loop method, give the inner optimizer: the fast weights are pulled to w0 (not to phi), and phi follows.

    Args:
        optimizer: whose steps take no closure.
        parameters: those of its parameters that are pulled: the pretrained ones.
        alpha: strength; lr times alpha is the share of the way back to w0 that a step goes.

    Returns:
        What ends it: ``remove()``.

    Raises:
        ValueError: alpha is negative, or lr times alpha above 1, where a step overshoots w0; a step raises it where a
            scheduler has brought lr there.
    """
    if not alpha >= 0.0:
        raise ValueError(f"alpha={alpha}: choose 0 or more")
    start = {parameter: parameter.detach().clone() for parameter in parameters}
    for group in optimizer.param_groups:
        if any(p in start for p in group["params"]):
            _check_share(alpha, float(group["lr"]))

    @torch.no_grad()
    def pull(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        moves = []
        for group in optimizer.param_groups:
            if pulled := [p for p in group["params"] if p in start and p.grad is not None]:
                _check_share(alpha, rate := float(group["lr"]))
                moves.append((pulled, rate * alpha))
        for pulled, share in moves:
            torch._foreach_lerp_(shards(pulled), shards(start[p] for p in pulled), share)

    return optimizer.register_step_pre_hook(pull)


def _check_share(alpha: float, rate: float) -> None:
    if rate * alpha > 1.0 + ROUNDING:
        raise ValueError(f"{alpha:g} times the learning rate {rate:g} is above 1; choose at most {1.0 / rate:g}")

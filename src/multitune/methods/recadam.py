"""RecAdam: Adam that is pulled back to the pretrained weights, less and less as training goes on.

Chen et al., "Recall and Learn: Fine-tuning Deep Pretrained Language Models with Less Forgetting", EMNLP 2020,
arXiv 2004.12651, Algorithm 1, and where it is silent the authors' code.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from multitune.methods.sharded import shards


def task_weight(step: int, k: float, t0: float) -> float:
    """lambda(t) = 1 / (1 + exp(-k (t - t0))): the share of the task against recall, 0 to 1."""
    # In terms of tanh, which saturates where exp would overflow.
    return 0.5 * (1.0 + math.tanh(0.5 * k * (step - t0)))


@final
class RecAdam(Optimizer):
    """Adam for lambda(t) L_task + (1 - lambda(t)) gamma / 2 |theta - theta*|^2, theta* the weights at construction.

    One step (t counts a parameter's steps from 1; the moments m, v are of the task's gradient alone)::

        theta <- theta - lr sqrt(1 - beta2^t) / (1 - beta1^t) lambda(t) m / (sqrt(v) + eps)
        theta <- theta - lr (1 - lambda(t)) gamma (theta - theta*)     # not preconditioned
        theta <- theta - lr weight_decay theta                         # decoupled

    As in the authors' code, eps is added before the bias correction of v: torch's AdamW with eps / sqrt(1 - beta2^t) in
    its place takes the same task step. A parameter without gradient stays where it is. Memory: theta*, m and v.

    Args:
        params: parameters or groups; a group with ``"recall": False`` (new heads) gets plain Adam, and no theta*.
        lr: learning rate.
        betas: decay of m and v.
        eps: added to sqrt(v).
        weight_decay: decoupled, towards 0 and after the other updates.
        gamma: strength of recall (pretrain_cof).
        k: slope of lambda (the authors try 0.05, 0.1, 0.2, 0.5, 1).
        t0: step at which lambda is 1/2 (the authors try 100, 250, 500, 1000).
        recall: default of the groups.

    Raises:
        ValueError: a setting out of range, or lr * gamma of 2 or more, where recall overshoots and diverges.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 3e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        gamma: float = 5000.0,
        k: float = 0.1,
        t0: float = 250.0,
        recall: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"gamma": gamma, "k": k, "t0": t0, "recall": recall})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; where it wants recall, its weights of this moment are its theta*."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _check_settings(group)
        if group["recall"]:
            for p in group["params"]:
                self.state[p]["pretrained"] = p.detach().clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns what ``closure`` returns.

        Raises:
            ValueError: a scheduler has brought lr * gamma to 2 or more, or a gradient is sparse; no weight has moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _check_stable(group)
            if any(p.grad is not None and p.grad.layout != torch.strided for p in group["params"]):
                raise ValueError("RecAdam takes no sparse gradients: give nn.Embedding sparse=False")
        for group in self.param_groups:
            for step, parameters in self._parameters_by_step(group).items():
                self._update(group, parameters, step)
        return loss

    def _parameters_by_step(self, group: dict[str, Any]) -> dict[int, list[Tensor]]:
        """The parameters that have a gradient, by the number of the step that they take; usually all have the same."""
        by_step: dict[int, list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if "step" not in state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["step"] += 1
            by_step.setdefault(state["step"], []).append(p)
        return by_step

    def _update(self, group: dict[str, Any], params: list[Tensor], step: int) -> None:
        beta1, beta2 = group["betas"]
        lr = float(group["lr"])
        grads = _real(p.grad for p in params if p.grad is not None)
        m = _real(self.state[p]["exp_avg"] for p in params)
        v = _real(self.state[p]["exp_avg_sq"] for p in params)
        weights = _real(params)
        torch._foreach_lerp_(m, grads, 1.0 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1.0 - beta2)

        weight = task_weight(step, group["k"], group["t0"]) if group["recall"] else 1.0
        rate = lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
        denominators = torch._foreach_sqrt(v)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(weights, m, denominators, -rate * weight)
        if group["recall"]:
            pretrained = _real(self.state[p]["pretrained"] for p in params)
            torch._foreach_lerp_(weights, pretrained, lr * (1.0 - weight) * group["gamma"])
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1.0 - lr * group["weight_decay"])


def _real(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This process's shards; complex ones as pairs of real numbers with moments of their own, as in torch's Adam."""
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in shards(tensors)]


def _check_settings(group: dict[str, Any]) -> None:
    for name in ("lr", "eps", "weight_decay", "gamma", "k"):
        if not group[name] >= 0.0:
            raise ValueError(f"{name}={group[name]}: choose 0 or more")
    if not all(0.0 <= beta < 1.0 for beta in group["betas"]):
        raise ValueError(f"betas={group['betas']}: choose both in [0, 1)")
    _check_stable(group)


def _check_stable(group: dict[str, Any]) -> None:
    if group["recall"] and group["lr"] * group["gamma"] >= 2.0:
        raise ValueError(
            f"lr={group['lr']:g} times gamma={group['gamma']:g} is 2 or more, where recall overshoots the pretrained "
            f"weights and diverges: choose gamma below {2.0 / group['lr']:g}"
        )

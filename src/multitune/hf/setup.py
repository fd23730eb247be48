"""What a method has to know of a Trainer's training."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from multitune.methods.sampling import CategoricalSampler
from multitune.plans.update import Setup


def setup_of(
    parameters: Iterable[tuple[str, nn.Parameter]],
    probabilities: Tensor,
    steps: int,
    seed: int,
    optimizer: Optimizer | None,
) -> Setup:
    """What a method has to know.

    Args:
        parameters: of the model, with their names; none for the method's draws alone.
        probabilities: how often each task is drawn, float64 [tasks].
        steps: of the training.
        seed: of all draws.
        optimizer: of the parameters; None for the draws alone.
    """
    named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    return Setup(
        parameters=named,
        pretrained=frozenset(name for name, _ in named),
        task_heads=frozenset(),
        embedding=None,
        probabilities=probabilities,
        task_weights="sampling",
        make_sampler=lambda generator: CategoricalSampler(probabilities, generator=generator),
        budget=steps,
        make_optimizer=lambda _: _given(optimizer),
        clip=None,
        seed=seed,
    )


def _given(optimizer: Optimizer | None) -> Optimizer:
    assert optimizer is not None
    return optimizer

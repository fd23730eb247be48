"""The methods: classes for any PyTorch loop, and by name for recipes.

``METHODS`` maps the names that recipes use to plans (options, and how a run's update is built from them);
``torchjd:NAME`` stands for every aggregator of TorchJD besides.
"""

from multitune.errors import UserError
from multitune.methods import combined_plans, regularised_plans, two_loop_plans
from multitune.methods.averaging import ExponentialAverage, SnapshotAverage
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from multitune.methods.recadam import RecAdam
from multitune.methods.schedule import Linear
from multitune.methods.swep import SWEP
from multitune.methods.torchjd import torchjd
from multitune.methods.two_loop import Fish, Lookahead, Reptile, SequentialReptile
from multitune.methods.update import Plan
from multitune.recipe import unknown

METHODS: dict[str, type[Plan]] = {
    "mtl": combined_plans.MTL,
    "stl": combined_plans.STL,
    "sequential": combined_plans.Sequential,
    "sequential_reptile": two_loop_plans.SequentialReptile,
    "reptile": two_loop_plans.Reptile,
    "lookahead": two_loop_plans.Lookahead,
    "fish": two_loop_plans.Fish,
    "gradnorm": combined_plans.GradNorm,
    "pcgrad": combined_plans.PCGrad,
    "gradvac": combined_plans.GradVac,
    "famo": combined_plans.FAMO,
    "recadam": regularised_plans.RecAdam,
    "swep": regularised_plans.SWEP,
}

TORCHJD = "torchjd:"


def find(name: str) -> type[Plan]:
    """The plan of a method by the name that recipes use.

    Raises:
        UserError: there is none (of TorchJD's, the plan's ``check()`` finds it).
    """
    if name.startswith(TORCHJD):
        return combined_plans.torchjd_plan(name.removeprefix(TORCHJD))
    if name not in METHODS:
        raise UserError(f"method: {unknown('method', name, listed())}")
    return METHODS[name]


def listed() -> dict[str, type[Plan]]:
    """``METHODS`` and a line for TorchJD's."""
    return METHODS | {f"{TORCHJD}NAME": combined_plans.TorchJD}


__all__ = [
    "FAMO",
    "METHODS",
    "SWEP",
    "ExponentialAverage",
    "Fish",
    "GradNorm",
    "GradVac",
    "Joint",
    "Linear",
    "Lookahead",
    "PCGrad",
    "Plan",
    "RecAdam",
    "Reptile",
    "SequentialReptile",
    "SnapshotAverage",
    "find",
    "listed",
    "torchjd",
]

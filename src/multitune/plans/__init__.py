"""The methods as recipes know them: ``METHODS`` maps their names to plans.

A plan has a method's options, and builds a run's update from them; torch is loaded when it does. ``torchjd:NAME``
stands for every aggregator of TorchJD besides.
"""

from multitune import plugins
from multitune.errors import UserError, unknown
from multitune.plans import combined, plain, regularised, two_loop
from multitune.plans.plan import Plan

METHODS: dict[str, type[Plan]] = {
    "mixed": plain.MixedPlan,
    "mtl": combined.MTLPlan,
    "stl": plain.STLPlan,
    "sequential": plain.SequentialPlan,
    "sequential_reptile": two_loop.SequentialReptilePlan,
    "reptile": two_loop.ReptilePlan,
    "lookahead": two_loop.LookaheadPlan,
    "fish": two_loop.FishPlan,
    "gradnorm": combined.GradNormPlan,
    "pcgrad": combined.PCGradPlan,
    "gradvac": combined.GradVacPlan,
    "famo": combined.FAMOPlan,
    "recadam": regularised.RecAdamPlan,
    "swep": regularised.SWEPPlan,
}

TORCHJD = "torchjd:"


def find(name: str) -> type[Plan]:
    """The plan of a method by the name that recipes use.

    Raises:
        UserError: there is none (of TorchJD's, the plan's ``check()`` finds it).
    """
    if name.startswith(TORCHJD):
        return combined.torchjd_plan(name.removeprefix(TORCHJD))
    plans = METHODS if name in METHODS else listed()
    if name not in plans:
        raise UserError(f"method: {unknown('method', name, plans)}")
    return plans[name]


def listed() -> dict[str, type[Plan]]:
    """``METHODS``, those of plugins among them, and a line for TorchJD's."""
    plugins.load()
    return METHODS | {f"{TORCHJD}NAME": combined.TorchJDPlan}


__all__ = ["METHODS", "TORCHJD", "Plan", "find", "listed"]

"""The methods as classes for any PyTorch loop. What recipes call them is in ``multitune.plans``."""

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

__all__ = [
    "FAMO",
    "SWEP",
    "ExponentialAverage",
    "Fish",
    "GradNorm",
    "GradVac",
    "Joint",
    "Linear",
    "Lookahead",
    "PCGrad",
    "RecAdam",
    "Reptile",
    "SequentialReptile",
    "SnapshotAverage",
    "torchjd",
]

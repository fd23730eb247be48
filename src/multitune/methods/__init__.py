"""The methods as classes for any PyTorch loop. What recipes call them is in ``multitune.plans``."""

from multitune.methods.anchor import anchor
from multitune.methods.averaging import ExponentialAverage, SnapshotAverage, interpolated, mean_weights
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from multitune.methods.recadam import RecAdam
from multitune.methods.reptile import Reptile
from multitune.methods.sampling import (
    CategoricalSampler,
    EpochSampler,
    PermutedSampler,
    SystematicSampler,
    proportional,
    uniform,
    unimax,
)
from multitune.methods.schedule import Linear
from multitune.methods.swep import SWEP
from multitune.methods.torchjd import torchjd
from multitune.methods.two_loop import Fish, Lookahead, SequentialReptile, TwoLoop

__all__ = [
    "FAMO",
    "SWEP",
    "CategoricalSampler",
    "EpochSampler",
    "ExponentialAverage",
    "Fish",
    "GradNorm",
    "GradVac",
    "Joint",
    "Linear",
    "Lookahead",
    "PCGrad",
    "PermutedSampler",
    "RecAdam",
    "Reptile",
    "SequentialReptile",
    "SnapshotAverage",
    "SystematicSampler",
    "TwoLoop",
    "anchor",
    "interpolated",
    "mean_weights",
    "proportional",
    "torchjd",
    "uniform",
    "unimax",
]

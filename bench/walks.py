"""How eta and K of several trajectories are to be chosen: Sequential Reptile with M of them on small networks.

Run ``python bench/walks.py [--seeds 3] [--steps 240]``. Eight tasks ask for the class of a point under views of one
teacher that differ a little; each has few examples, as small languages have. A network that has learnt another view is
fine-tuned with AdamW on all eight. Each cell is the mean accuracy on unseen points at the learning rate that is best on
other ones. Equal time: each trajectory makes all the steps, which M ranks do in the time of one. Equal gradients: the
trajectories share the steps.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from multitune.methods.sampling import CategoricalSampler, uniform
from multitune.methods.schedule import Linear, Schedule
from multitune.methods.two_loop import SequentialReptile

TASKS, WIDTH, CLASSES, BATCH = 8, 16, 5, 8
TRAJECTORIES, OUTER_STEPS = (1, 2, 4), (6, 24, 48)
RATES = (1e-2, 3e-2)
ETAS: dict[str, float | Schedule] = {"0.5 to 1": Linear(0.5, 1.0), "1": 1.0}


@dataclass(frozen=True)
class Split:
    """Points [tasks, n, width] and their classes [tasks, n]."""

    points: Tensor
    classes: Tensor


def views(generator: torch.Generator) -> Iterator[Split]:
    """Training, dev and test points of all tasks, and those that pretraining has."""
    first = torch.randn(WIDTH, 32, generator=generator) / WIDTH**0.5
    last = torch.randn(32, CLASSES, generator=generator)
    turns = torch.eye(WIDTH) + 0.7 * torch.randn(TASKS + 1, WIDTH, WIDTH, generator=generator) / WIDTH**0.5
    for count, own in ((100, slice(1, None)), (200, slice(1, None)), (400, slice(1, None)), (2000, slice(0, 1))):
        points = torch.randn(TASKS + 1, count, WIDTH, generator=generator)
        logits = (2 * points @ turns @ first).tanh() @ last
        noise = torch.randn(logits.shape, generator=generator)
        yield Split(points[own], (logits + 0.3 * noise).argmax(-1)[own])


def network(generator: torch.Generator) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(WIDTH, 48), nn.Tanh(), nn.Linear(48, CLASSES))
    for weight in net.parameters():
        nn.init.normal_(weight, 0.0, 0.2, generator=generator)
    return net


def pretrained(split: Split, generator: torch.Generator) -> dict[str, Tensor]:
    net = network(generator)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(300):
        rows = torch.randint(len(split.points[0]), (32,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(net(split.points[0, rows]), split.classes[0, rows]).backward()
        optimizer.step()
    return net.state_dict()


def accuracy(net: nn.Module, split: Split) -> float:
    with torch.no_grad():
        return 100 * float((net(split.points).argmax(-1) == split.classes).double().mean())


@dataclass(frozen=True)
class Setting:
    """M trajectories of ``steps`` steps each, cut into so many outer steps."""

    trajectories: int
    steps: int
    outer_steps: int
    eta: float | Schedule


def tuned(setting: Setting, rate: float, start: dict[str, Tensor], train: Split, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    net = network(generator)
    net.load_state_dict(start)
    loop = SequentialReptile(
        torch.optim.AdamW(net.parameters(), fused=True),
        max(1, setting.steps // setting.outer_steps),
        setting.eta,
        trajectories=setting.trajectories,
    )
    sampler = CategoricalSampler(uniform(TASKS), generator=generator)
    for step in range(setting.steps):
        loop.progress = step / setting.steps
        for group in loop.param_groups:
            group["lr"] = rate * min(10 * (step + 1) / setting.steps, 1 - step / setting.steps)
        for task in sampler.draw(setting.trajectories):
            rows = torch.randint(train.points.shape[1], (BATCH,), generator=generator)
            loop.zero_grad()
            cross_entropy(net(train.points[task, rows]), train.classes[task, rows]).backward()
            loop.step()
    loop.close_inner_loop()
    return net


def cell(setting: Setting, seeds: int) -> str:
    """Mean and standard error over seeds, of the learning rate that is best on dev."""
    found: dict[float, list[tuple[float, float]]] = {rate: [] for rate in RATES}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(1000 + seed)
        train, dev, test, before = views(generator)
        start = pretrained(before, generator)
        for rate, scores in found.items():
            net = tuned(setting, rate, start, train, seed)
            scores.append((accuracy(net, dev), accuracy(net, test)))
    best = max(found.values(), key=lambda scores: mean(dev for dev, _ in scores))
    tests = [test for _, test in best]
    return f"{mean(tests):5.1f} ±{stdev(tests) / len(tests) ** 0.5:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240)
    given = parser.parse_args()
    print("| M | equal | eta | " + " | ".join(f"{n} outer steps" for n in OUTER_STEPS) + " |")
    print("|---|---|---|" + "---|" * len(OUTER_STEPS))
    for count in TRAJECTORIES:
        for equal, steps in (("time", given.steps), ("gradients", given.steps // count)):
            if count == 1 and equal == "gradients":
                continue
            for name, eta in ETAS.items():
                cells = [cell(Setting(count, steps, outer, eta), given.seeds) for outer in OUTER_STEPS]
                print(f"| {count} | {equal} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

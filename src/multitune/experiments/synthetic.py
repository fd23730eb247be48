"""The synthetic experiment: three tasks in the plane, and where each method comes to rest.

Lee et al., "Sequential Reptile: Inter-Task Gradient Alignment for Multilingual Learning", ICLR 2022, section 4.1,
Figures 3 and 9 to 11. docs/synthetic.md has the results and the numbered departures from the paper.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multitune.evaluation.intervals import from_seeds
from multitune.experiments.funnels import DEPTH, OPTIMA, ROUNDING, cosines, task_losses
from multitune.methods.base import CombiningMethod
from multitune.methods.combiner import Combiner
from multitune.methods.gradnorm import GradNorm
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from multitune.methods.recadam import RecAdam
from multitune.methods.reptile import Reptile
from multitune.methods.sampling import CategoricalSampler, EpochSampler, TaskSampler, uniform
from multitune.methods.torchjd import torchjd
from multitune.methods.two_loop import Fish, Lookahead, SequentialReptile, TwoLoop
from multitune.results.comparison import Interval
from multitune.storage.atomic import write_json
from multitune.versions import versions

STARTS = ((20.0, 5.0), (-5.0, 20.0), (-10.0, -5.0))
"""The first is the paper's; it does not print the others. From these three MTL falls into the three optima in turn."""
LEARNING_RATES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Those that are swept; below, the slow weights of the two-loop methods do not arrive anywhere within the budget."""
BUDGET = 1500
"""Gradient computations of a walk, alike for every method: a joint step costs three, a single-task step one."""
SEEDS = 16
NEARBY = 0.01
"""How far starts lie apart, where a method draws no tasks: large steps make one walk a matter of rounding."""
TAIL = 0.25
"""Share of a walk, from its end, over which losses and cosines are averaged."""


Sharing = Literal["parameter", "walk", "nothing"]


@dataclass(frozen=True)
class Plane:
    """Points that walk at once and do not see each other, ordered by learning rate, start and seed.

    ``points``: parameters [n, 2]. ``learning_rates``: one a parameter. ``seeds``: of what a walk draws.
    """

    points: Sequence[nn.Parameter]
    learning_rates: Sequence[float]
    seeds: Sequence[int]

    @staticmethod
    def of(
        starts: Sequence[tuple[float, float]],
        learning_rates: Sequence[float],
        seeds: Sequence[int],
        sharing: Sharing = "parameter",
        spread: float = 0.0,
    ) -> "Plane":
        """All starts at each learning rate: in one parameter, or in one for each start.

        ``spread``: standard deviation of what is added to the coordinates of starts, drawn for each seed.
        """
        rows = torch.tensor(starts, dtype=torch.float64).repeat_interleave(len(seeds), 0)
        drawn = [torch.randn(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
        rows += spread * torch.stack(drawn).repeat(len(starts), 1)
        parts = [rows] if sharing == "parameter" else list(rows.split(len(seeds)))
        points = [nn.Parameter(part.clone()) for _ in learning_rates for part in parts]
        return Plane(points, [rate for rate in learning_rates for _ in parts], seeds)

    def losses(self) -> Tensor:
        """[points, tasks]."""
        return task_losses(torch.cat(list(self.points)))

    def sgd(self) -> torch.optim.SGD:
        return torch.optim.SGD(self.groups())

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer."""
        return [{"params": [p], "lr": lr} for p, lr in zip(self.points, self.learning_rates, strict=True)]

    def draws(self, sampler: Callable[[torch.Generator], TaskSampler]) -> Tensor:
        """The tasks that each point meets, [BUDGET, points, 1]; those of a seed are the same everywhere."""
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        by_seed = torch.tensor([sampler(generator).draw(BUDGET) for generator in generators]).T
        return by_seed.repeat(1, sum(map(len, self.points)) // len(self.seeds))[..., None]

    def snapshot(self) -> Tensor:
        """[points, 2]."""
        return torch.cat([point.detach() for point in self.points])


Walk = Callable[[Plane], Iterator[None]]
"""Moves a plane's points; yields wherever they are to be recorded: after a step, or an outer step."""


def _combine(make: Callable[[Plane], CombiningMethod]) -> Walk:
    """SGD on the sum of the combined task gradients; each parameter is a group with a Gram matrix of its own."""

    def walk(plane: Plane) -> Iterator[None]:
        combiner, optimizer = Combiner(plane.points, make(plane), groups="all_matrix"), plane.sgd()
        for _ in range(BUDGET // len(OPTIMA)):
            # GradNorm compares ratios of losses: counted from the lower bound, they are positive.
            losses = ((plane.losses()[..., task] + DEPTH).sum() for task in range(len(OPTIMA)))
            optimizer.zero_grad()
            combiner.backward(losses, tasks=range(len(OPTIMA)))
            optimizer.step()
            yield

    return walk


def _recadam(plane: Plane) -> Iterator[None]:
    # gamma is given through lr * gamma, the share of the way back to the start in one step.
    groups = [group | {"gamma": 0.1 / group["lr"]} for group in plane.groups()]
    optimizer = RecAdam(groups, k=0.05, t0=100.0)
    for _ in range(BUDGET // len(OPTIMA)):
        optimizer.zero_grad()
        plane.losses().sum().backward()
        optimizer.step()
        yield


def _one_task_a_step(
    make: Callable[[torch.optim.SGD], TwoLoop], sampler: Callable[[torch.Generator], TaskSampler]
) -> Walk:
    """Each step has the loss of one task alone, drawn for each seed."""

    def walk(plane: Plane) -> Iterator[None]:
        outer = make(plane.sgd())
        for tasks in plane.draws(sampler):
            outer.zero_grad()
            plane.losses().gather(1, tasks).sum().backward()
            outer.step()
            if outer.inner_step == 0:
                yield

    return walk


def _reptile(plane: Plane) -> Iterator[None]:
    outer = Reptile(plane.sgd(), inner_steps=10, outer_lr=0.1, num_tasks=len(OPTIMA))
    for _ in range(BUDGET):
        outer.zero_grad()
        plane.losses()[..., outer.task].sum().backward()
        outer.step()
        if outer.inner_step == 0 and outer.task == 0:
            yield


def _lookahead(plane: Plane) -> Iterator[None]:
    outer = Lookahead(plane.sgd(), inner_steps=10, outer_lr=0.1)
    for _ in range(BUDGET // len(OPTIMA)):
        outer.zero_grad()
        plane.losses().mean(-1).sum().backward()
        outer.step()
        if outer.inner_step == 0:
            yield


def _categorical(generator: torch.Generator) -> TaskSampler:
    return CategoricalSampler(uniform(len(OPTIMA)), generator=generator)


def _epochs(generator: torch.Generator) -> TaskSampler:
    return EpochSampler(len(OPTIMA), generator=generator)


@dataclass(frozen=True)
class Method:
    """How the experiment runs a method.

    ``learning_rate``: of the figures. ``options``: for the reader. ``drawn``: the tasks of its steps are drawn for each
    seed. ``sharing``: what points that walk at once may have in common. Where each needs a Gram matrix of its own, a
    walk; where the method has one state for all parameters, or is slow, nothing: then it walks at ``learning_rate``
    only. A method that shares a parameter walks once a seed; if it draws no tasks, from starts that lie ``NEARBY``.
    """

    label: str
    walk: Walk
    learning_rate: float
    options: str = ""
    drawn: bool = False
    sharing: Sharing = "parameter"


METHODS: dict[str, Method] = {
    "mtl": Method("MTL", _combine(lambda plane: Joint()), 0.02),
    "recadam": Method("RecAdam", _recadam, 0.1, "lr gamma 0.1, k 0.05, t0 100; not SGD"),
    "gradnorm": Method(
        "GradNorm", _combine(lambda plane: GradNorm(3, lr=1e-4)), 0.02, "alpha 1.5, weights' lr 1e-4", sharing="nothing"
    ),
    "pcgrad": Method("PCGrad", _combine(lambda plane: PCGrad(plane.seeds[0])), 0.02, sharing="walk"),
    "gradvac": Method(
        "GradVac", _combine(lambda plane: GradVac(3, seed=plane.seeds[0])), 0.02, "beta 0.01", sharing="walk"
    ),
    "reptile": Method("Reptile", _reptile, 1.0, "K 10, eta 0.1"),
    "sequential_reptile": Method(
        "Sequential Reptile",
        _one_task_a_step(lambda sgd: SequentialReptile(sgd, inner_steps=10, outer_lr=0.1), _categorical),
        1.0,
        "K 10, eta 0.1",
        drawn=True,
    ),
    "sequential": Method(
        "Sequential",
        _one_task_a_step(lambda sgd: SequentialReptile(sgd, inner_steps=1, outer_lr=1.0), _categorical),
        0.02,
        "eta 1",
        drawn=True,
    ),
    "lookahead": Method("Lookahead", _lookahead, 1.0, "K 10, eta 0.1, mean of the tasks"),
    "fish": Method(
        "Fish",
        _one_task_a_step(lambda sgd: Fish(sgd, inner_steps=3, outer_lr=0.1), _epochs),
        1.0,
        "K 3, eta 0.1",
        drawn=True,
    ),
    "upgrad": Method("UPGrad", _combine(lambda plane: torchjd("UPGrad")), 0.02, "TorchJD", sharing="nothing"),
}
FIGURE_3 = ("mtl", "recadam", "gradnorm", "pcgrad", "gradvac", "reptile", "sequential_reptile")
"""The methods of the paper's figure. Its list of baselines has STL too, which has no point shared by the tasks."""


@dataclass(frozen=True)
class Outcome:
    """The last quarter of one method's walks at one learning rate: from one start, or (``start`` None) from all three.

    ``distance``: to the nearest optimum. ``loss``: sum_i L_i. ``cosine``: mean over the pairs of tasks; ``pairs``:
    each, in the order of ``PAIRS``. ``end``: where the first seed's walk ends. Intervals are 95 % over seeds, and of no
    width for methods that walk once.
    """

    method: str
    learning_rate: float
    start: tuple[float, float] | None
    distance: Interval
    loss: Interval
    cosine: Interval
    pairs: list[float]
    end: list[float] | None = None


@dataclass(frozen=True)
class Margin:
    """Sequential Reptile's mean cosine less the highest of the other methods of Figure 3: positive, as in the paper.

    ``learning_rate``: Sequential Reptile's inner one. ``own``: against the others at theirs of the figures. ``same``:
    against the others at this one (without GradNorm, which is not swept). The intervals are Sequential Reptile's.
    """

    learning_rate: float
    own: Interval
    same: Interval


@dataclass(frozen=True)
class Synthetic:
    """All walks, summarised.

    ``walks``: outcomes of each method, learning rate and start. ``sweep``: the same over the three starts. ``paths``:
    for a method and start, where the first seed walked at the figures' learning rate, [records, 2].
    """

    seed: int
    walks: list[Outcome]
    sweep: list[Outcome]
    paths: dict[tuple[str, tuple[float, float]], Tensor]

    @property
    def methods(self) -> list[str]:
        """The methods that ran, in order."""
        return list(dict.fromkeys(outcome.method for outcome in self.walks))

    def of_figures(self, start: tuple[float, float]) -> list[Outcome]:
        """Each method's outcome from ``start`` at the figures' learning rate."""
        return [o for o in self.walks if o.start == start and o.learning_rate == METHODS[o.method].learning_rate]

    def margins(self) -> list[Margin]:
        """Whether the ordering of the paper's Figure 3h holds at each of LEARNING_RATES."""
        cosine = {(outcome.method, outcome.learning_rate): outcome.cosine for outcome in self.sweep}
        others = [name for name in FIGURE_3 if name != "sequential_reptile"]
        own = max(cosine[name, METHODS[name].learning_rate].mean for name in others)
        margins = []
        for rate in LEARNING_RATES:
            ours = cosine["sequential_reptile", rate]
            same = max(cosine[name, rate].mean for name in others if (name, rate) in cosine)
            margins.append(Margin(rate, _less(ours, own), _less(ours, same)))
        return margins

    def write(self, path: Path) -> None:
        """Write settings and outcomes, without the paths, as JSON."""
        experiment = {"seed": self.seed, "seeds": SEEDS, "budget": BUDGET, "tail": TAIL, "rounding": ROUNDING}
        settings = {
            name: {"learning_rate": METHODS[name].learning_rate, "options": METHODS[name].options}
            for name in self.methods
        }
        outcomes = {
            "walks": [asdict(outcome) for outcome in self.walks],
            "sweep": [asdict(outcome) for outcome in self.sweep],
            "margins": [asdict(margin) for margin in self.margins()],
        }
        write_json(path, experiment | {"optima": OPTIMA, "methods": settings} | outcomes | {"versions": versions()})


def run(seed: int = 0) -> Synthetic:
    """Walk with every method, learning rate, start and seed; UPGrad only where TorchJD is installed.

    seed: of all that is drawn (SEEDS different walks); the same seed gives the same numbers.
    """
    walks, sweep, paths = [], [], {}
    for name, method in METHODS.items():
        if name == "upgrad" and find_spec("torchjd") is None:
            continue
        rates, walked = _walked(method, seed)
        for rate, at_rate in zip(rates, walked.unbind(1), strict=True):
            for start, path in zip(STARTS, at_rate.unbind(1), strict=True):
                walks.append(_outcome(name, rate, start, path[:, None]))
                if rate == method.learning_rate:
                    paths[name, start] = path[:, 0].clone()
            sweep.append(_outcome(name, rate, None, at_rate))
    return Synthetic(seed, walks, sweep, paths)


def _walked(method: Method, seed: int) -> tuple[Sequence[float], Tensor]:
    """The learning rates and the paths, [records, learning rates, starts, seeds, 2]."""
    seeds = range(seed * SEEDS, (seed + 1) * SEEDS) if method.sharing == "parameter" else [seed]
    alone, spread = method.sharing == "nothing", 0.0 if method.drawn or len(seeds) == 1 else NEARBY
    rates = (method.learning_rate,) if alone else sorted({*LEARNING_RATES, method.learning_rate})
    planes = [
        Plane.of(starts, rates, seeds, method.sharing, spread)
        for starts in ([[s] for s in STARTS] if alone else [STARTS])
    ]
    paths = torch.cat([_path(method.walk, plane) for plane in planes], dim=1)
    return rates, paths.unflatten(1, (len(rates), len(STARTS), len(seeds)))


def _path(walk: Walk, plane: Plane) -> Tensor:
    """[records, points, 2], the start first."""
    return torch.stack([plane.snapshot(), *(plane.snapshot() for _ in walk(plane))])


def _outcome(method: str, rate: float, start: tuple[float, float] | None, path: Tensor) -> Outcome:
    """path: [records, starts, seeds, 2]."""
    tail = path[-round(TAIL * len(path)) :]
    distance = (tail[..., None, :] - tail.new_tensor(OPTIMA)).norm(dim=-1).amin(-1)
    pairs = cosines(tail)
    return Outcome(
        method=method,
        learning_rate=rate,
        start=start,
        distance=_interval(distance),
        loss=_interval(task_losses(tail).sum(-1)),
        cosine=_interval(pairs.mean(-1)),
        pairs=pairs.mean((0, 1, 2)).tolist(),
        end=None if start is None else path[-1, 0, 0].tolist(),
    )


def _interval(values: Tensor) -> Interval:
    """values: [records, starts, seeds]."""
    by_seed = values.mean((0, 1)).numpy()
    mean = float(by_seed.mean())
    return from_seeds(by_seed) if len(by_seed) > 1 else Interval(mean, mean, mean)


def _less(interval: Interval, value: float) -> Interval:
    return Interval(interval.mean - value, interval.low - value, interval.high - value)

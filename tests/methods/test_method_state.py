"""20 steps are 10 steps, a state stored as safetensors and JSON, and 10 more steps in a new process, bitwise.

Run as a script, ``python tests/methods/test_method_state.py FOLDER`` is that new process: it continues every case in
FOLDER.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer

from multitune.methods.averaging import ExponentialAverage, SnapshotAverage, WeightAverage
from multitune.methods.optimizer_state import load_plain, to_plain
from multitune.methods.recadam import RecAdam
from multitune.methods.reptile import Reptile
from multitune.methods.sampling import CategoricalSampler, EpochSampler, TaskSampler, proportional
from multitune.methods.schedule import Linear
from multitune.methods.swep import SWEP
from multitune.methods.two_loop import Fish, SequentialReptile, TwoLoop

TASKS, STEPS = 3, 20


class Model(nn.Module):
    """The least that SWEP can perturb: embeddings, a layer, a head."""

    seed = 0

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.layer, self.head = nn.Embedding(11, 4), nn.Linear(4, 4), nn.Linear(4, TASKS)
        generator = torch.Generator().manual_seed(self.seed)
        for p in self.parameters():
            nn.init.normal_(p, generator=generator)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def base_model(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        return (self.layer(self.embeddings(input_ids)).tanh() * attention_mask.unsqueeze(-1),)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.base_model(input_ids, attention_mask)[0].mean(1)))


def negative_log_likelihood(label: int, output: SimpleNamespace) -> Tensor:
    return nn.functional.cross_entropy(output.logits, torch.full((len(output.logits),), label))


class Training:
    """A small run with every kind of state."""

    def __init__(
        self,
        make_optimizer: Callable[[list[nn.Parameter]], Optimizer],
        make_average: Callable[[list[nn.Parameter]], WeightAverage],
        make_sampler: Callable[[torch.Generator], TaskSampler],
        *,
        perturbed: bool = False,
    ) -> None:
        self.model = Model()
        self.swep = SWEP(4, generator=torch.Generator().manual_seed(2)).train(perturbed)
        trained = [*self.model.parameters(), *(self.swep.parameters() if perturbed else [])]
        self.optimizer, self.average = make_optimizer(trained), make_average(trained)
        self.sampler = make_sampler(torch.Generator().manual_seed(3))

    def steps(self, first: int, last: int) -> None:
        for i in range(first, last):
            if isinstance(self.optimizer, TwoLoop):
                self.optimizer.progress = i / STEPS
            task = self.optimizer.task if isinstance(self.optimizer, Reptile) else self.sampler.draw(1)[0]
            ids = torch.randint(11, (5, 6), generator=torch.Generator().manual_seed(TASKS * i + task))
            self.optimizer.zero_grad()
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            self.swep.loss(self.model, inputs, partial(negative_log_likelihood, task)).backward()
            self.optimizer.step()
            self.average.update()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "swep": self.swep.state_dict(),
            "optimizer": to_plain(self.optimizer.state_dict()),
            "average": self.average.state_dict(),
            "sampler": self.sampler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.swep.load_state_dict(state["swep"])
        load_plain(self.optimizer, state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.sampler.load_state_dict(state["sampler"])


def by_size(generator: torch.Generator) -> TaskSampler:
    return CategoricalSampler(proportional([500, 100, 20]), generator=generator)


def recadam(parameters: list[nn.Parameter]) -> Optimizer:
    groups: list[dict[str, Any]] = [{"params": parameters[:3]}, {"params": parameters[3:], "recall": False}]
    return RecAdam(groups, lr=1e-2, gamma=50.0, k=0.5, t0=8.0)


def wrapping(method: Callable[..., TwoLoop], inner: Callable[..., Optimizer], **options: Any) -> Any:
    return lambda parameters: method(inner(parameters), **options)


ADAMW = partial(AdamW, lr=1e-2)
NESTEROV = partial(SGD, momentum=0.9, nesterov=True)
REPTILE = partial(Reptile, num_tasks=TASKS, inner_steps=4)
RISING = {"inner_steps": Linear(4.0, 6.0), "outer_lr": Linear(0.1, 1.0)}
EMA, LAST = partial(ExponentialAverage, decay=0.9), partial(SnapshotAverage, n=3)

# After 10 steps each of the two-loop cases is in the middle of an inner loop, Reptile in its third trajectory.
CASES: dict[str, Callable[[], Training]] = {
    "adamw": lambda: Training(ADAMW, EMA, by_size),
    "swep": lambda: Training(ADAMW, LAST, by_size, perturbed=True),
    "recadam": lambda: Training(recadam, EMA, by_size),
    "sequential_reptile": lambda: Training(wrapping(SequentialReptile, ADAMW, inner_steps=7), LAST, by_size),
    "scheduled": lambda: Training(wrapping(SequentialReptile, ADAMW, **RISING), EMA, by_size),
    "reset": lambda: Training(wrapping(SequentialReptile, ADAMW, inner_steps=7, inner_state="reset"), EMA, by_size),
    "reset_adagrad": lambda: Training(
        wrapping(SequentialReptile, partial(Adagrad, lr=0.1), inner_steps=7, inner_state="reset"), EMA, by_size
    ),
    "reset_recadam": lambda: Training(
        wrapping(SequentialReptile, recadam, inner_steps=7, inner_state="reset"), EMA, by_size
    ),
    "nesterov": lambda: Training(
        wrapping(SequentialReptile, ADAMW, inner_steps=4, outer_lr=0.7, outer_optimizer=NESTEROV), EMA, by_size
    ),
    "adamw_outside": lambda: Training(
        wrapping(SequentialReptile, ADAMW, inner_steps=4, outer_lr=0.01, outer_optimizer=AdamW), EMA, by_size
    ),
    "fish": lambda: Training(
        wrapping(Fish, ADAMW, inner_steps=4), EMA, lambda generator: EpochSampler(TASKS, generator=generator)
    ),
    "reptile": lambda: Training(wrapping(REPTILE, ADAMW), EMA, by_size),
    "reptile_reset": lambda: Training(wrapping(REPTILE, ADAMW, inner_state="reset"), EMA, by_size),
    "reptile_recadam": lambda: Training(wrapping(REPTILE, recadam, outer_optimizer=NESTEROV), EMA, by_size),
}


def store(state: dict[str, Any], path: Path) -> None:
    """Tensors to ``path``.safetensors, all else to ``path``.json."""
    tensors: dict[str, Tensor] = {}

    def described(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[str(len(tensors))] = value.clone()
            return {"tensor": str(len(tensors) - 1)}
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            return {key: described(entry) for key, entry in value.items()}
        return [described(entry) for entry in value] if isinstance(value, list) else value

    path.with_suffix(".json").write_text(json.dumps(described(state)))
    save_file(tensors, path.with_suffix(".safetensors"))


def restore(path: Path) -> dict[str, Any]:
    tensors = load_file(path.with_suffix(".safetensors"))

    def rebuilt(value: Any) -> Any:
        if isinstance(value, dict):
            return tensors[value["tensor"]] if set(value) == {"tensor"} else {k: rebuilt(v) for k, v in value.items()}
        return [rebuilt(entry) for entry in value] if isinstance(value, list) else value

    state = rebuilt(json.loads(path.with_suffix(".json").read_text()))
    assert isinstance(state, dict)
    return state


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, string and tensor of a state, with its path."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, f"{where}/{key}")
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            yield from leaves(entry, f"{where}/{i}")
    else:
        yield where, value


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the states of all cases lie after 10 steps here and 10 in a new process."""
    folder = tmp_path_factory.mktemp("states")
    for name, make in CASES.items():
        training = make()
        training.steps(0, STEPS // 2)
        store(training.state(), folder / name)
    subprocess.run([sys.executable, "-W", "error", __file__, str(folder)], check=True)
    return folder


@pytest.mark.check
@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_are_ten_and_ten_in_a_new_process(name: str, continued: Path) -> None:
    whole = CASES[name]()
    whole.steps(0, STEPS)
    expected, actual = (dict(leaves(state)) for state in (whole.state(), restore(continued / name)))
    assert set(actual) == set(expected)
    for where, value in expected.items():
        same = torch.equal(actual[where], value) if isinstance(value, Tensor) else actual[where] == value
        assert same, where


def continue_all(folder: Path) -> None:
    # Other first weights: theta* and all else has to come from the state.
    Model.seed = 1
    for name, make in CASES.items():
        training = make()
        training.load(restore(folder / name))
        training.steps(STEPS // 2, STEPS)
        store(training.state(), folder / name)


if __name__ == "__main__":
    continue_all(Path(sys.argv[1]))

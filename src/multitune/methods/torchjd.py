"""Every aggregator and weighting of TorchJD (https://torchjd.org) by name: the only file that imports it."""

import copy
import importlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from multitune.errors import UserError, unknown
from multitune.methods.base import GramMethod, RowsMethod, Seeded
from multitune.seeds import global_draws

UNFIT = {
    **dict.fromkeys(
        ("Aggregator", "Weighting", "WeightedAggregator", "GramianWeightedAggregator"), "an abstract base class"
    ),
    **dict.fromkeys(("MoDoWeighting", "SDMGradWeighting"), "made for gradients of two independent batches a task"),
}
SIZE_ALONE = ("Constant", "Mean", "Random", "Sum")
LINEAR_IN_ROWS = ("CAGrad", "GradVac", "Mean", "PCGrad", "Sum")
"""Methods around the rows' sum or mean: a row that is scaled has as much more of it."""
UNDEFINED_AT_ZERO = ("NashMTL",)
"""Aggregators that divide by the norm of the whole matrix."""


def torchjd(name: str, /, *, seed: int = 0, **options: Any) -> "TorchJDWeighting | TorchJDAggregator":
    """Make the method that TorchJD calls `name`.

    What TorchJD computes from the Gram matrix, or from the number of tasks, gets it in float64; the rest gets the rows.
    Its scales are absolute (UPGrad, DualProj and CAGrad take a matrix of squared norm below 1e-4 for zero). Its state
    goes with the rows in their order: with a sample of the tasks in each step, methods that have one mix up the tasks.

    Args:
        name: an aggregator ("UPGrad") or its weighting ("UPGradWeighting", the same).
        seed: of the generator, saved in the state, from which TorchJD's draws come (GradDrop, PCGrad, ...).
        options: of TorchJD's class; a list is made a tensor (`pref_vector`, `weights`, `leak`). CRMOGM, which smooths
            another method's weights, takes that one's name as `weighting` and its options besides its own.

    Raises:
        UserError: torchjd or a solver is missing, the name is unknown, or an option is wrong.
    """
    aggregator = _aggregator(name, options)
    weighting = _gram_weighting(aggregator)
    method = TorchJDAggregator(aggregator, seed) if weighting is None else TorchJDWeighting(weighting, seed)
    method.by_place = any(isinstance(option, list | Tensor) for option in options.values()) or any(
        isinstance(module, importlib.import_module("torchjd").Stateful) for module in aggregator.modules()
    )
    if type(aggregator).__name__ in LINEAR_IN_ROWS:
        method.task_weights = "rows"
    elif "pref_vector" not in options and _with_preference(aggregator):
        method.task_weights = "preference"
    return method


def _with_preference(aggregator: nn.Module) -> list[Any]:
    """The parts of an aggregator that take a preference vector, a weight for each row."""
    return [module for module in aggregator.modules() if hasattr(type(module), "pref_vector")]


def _gram_weighting(aggregator: nn.Module) -> nn.Module | None:
    """The part of the aggregator that makes weights from the Gram matrix, or from its size alone."""
    size_alone = type(aggregator).__name__ in SIZE_ALONE
    weighting = getattr(aggregator, "weighting" if size_alone else "gramian_weighting", None)
    assert weighting is None or isinstance(weighting, nn.Module)
    return weighting


def _aggregator(name: str, options: dict[str, Any]) -> nn.Module:
    library = _library()
    if name in UNFIT:
        raise UserError(f"torchjd:{name} cannot be used: it is {UNFIT[name]}")
    if name.removesuffix("Weighting") == "CRMOGM":
        return _smoothed(library, dict(options))
    names = sorted(set(library.__all__) - set(UNFIT))
    if name not in names:
        raise UserError(unknown("torchjd method", name, [each for each in names if not each.endswith("Weighting")]))
    kind = getattr(library, name.removesuffix("Weighting"))
    reads_gram = kind.__name__ in SIZE_ALONE or issubclass(kind, library.GramianWeightedAggregator)
    dtype = torch.float64 if reads_gram else None  # that of what it will get: a Gram matrix, or rows
    try:
        aggregator = kind(**{k: torch.tensor(v, dtype=dtype) if isinstance(v, list) else v for k, v in options.items()})
    except (ImportError, TypeError, ValueError) as error:  # a solver is missing; an option is unknown, missing, wrong
        raise UserError(f"torchjd:{name}: {error}") from error
    assert isinstance(aggregator, nn.Module)
    return aggregator


def _smoothed(library: Any, options: dict[str, Any]) -> nn.Module:
    if not isinstance(options.get("weighting"), str):
        raise UserError("torchjd:CRMOGM smooths another method's weights: name it, as in weighting=UPGrad")
    own = {key: options.pop(key) for key in ("alpha", "initial_weights") if key in options}
    inner = _aggregator(options.pop("weighting"), options)
    for attribute, kind in (
        ("gramian_weighting", library.GramianWeightedAggregator),
        ("weighting", library.WeightedAggregator),
    ):
        if isinstance(inner, kind):
            smoothed: nn.Module = kind(library.CRMOGMWeighting(getattr(inner, attribute), **own))
            return smoothed
    raise UserError("torchjd:CRMOGM smooths weights, and that method has none")


def _library() -> Any:
    try:
        return importlib.import_module("torchjd.aggregation")
    except ModuleNotFoundError as error:
        raise UserError("torchjd methods need TorchJD: pip install 'multitune[torchjd]'") from error


class _TorchJD(Seeded):
    """One copy of TorchJD's module for each parameter group (its states are for one matrix), not registered as
    submodules: their buffers come and go, so `get_extra_state` takes everything, as a safetensors file in bytes."""

    by_place = False
    """There is a value for each task, a state or an option, which goes by the places of the rows."""
    task_weights: Literal["rows", "preference", "own"] = "own"
    """How tasks are given weights: by scaling their rows, by `preference`, or not at all: it sets them itself."""

    def __init__(self, module: nn.Module, seed: int) -> None:
        super().__init__(seed)
        self.copies: tuple[nn.Module, ...] = (module,)
        self.preference: Tensor | None = None
        """A weight for each row, [n], which sum to 1; None leaves it to TorchJD, which weighs them alike."""

    def for_groups(self, groups: int) -> None:
        self.copies = tuple(copy.deepcopy(self.copies[0]) for _ in range(groups))

    def _result(self, group: int, matrix: Tensor) -> Tensor:
        """What a group's module makes of its matrix, with the tasks' weights where it takes any."""
        module = self.copies[group]
        if self.preference is not None:
            for part in _with_preference(module):
                part.pref_vector = self.preference.to(matrix)
        combined = module(matrix)
        assert isinstance(combined, Tensor)
        return combined

    @contextmanager
    def _called(self, device: torch.device) -> Iterator[None]:
        """Inside, the global generators, from which TorchJD draws, are seeded from ours."""
        seed = int(torch.randint(2**62, (), generator=self.generator))
        # NashMTL keeps its last weights where its problem has no solution. What numpy and cvxpy have to say about that,
        # and about how it puts its problem, is nothing that a user could mend.
        quiet = np.errstate(divide="ignore", invalid="ignore")
        with global_draws(seed, device), warnings.catch_warnings(), quiet:
            warnings.filterwarnings("ignore", "You are solving a parameterized problem that is not DPP")
            warnings.filterwarnings("ignore", "Solution may be inaccurate")
            yield

    def get_extra_state(self) -> Tensor:
        tensors, plain = {"generator": self.generator.get_state()}, {}
        for key, value in self._values():
            if isinstance(value, Tensor | np.ndarray):
                tensors[key] = torch.as_tensor(value).detach().clone().contiguous()
            else:
                plain[key] = _encode(value)
        tensors["plain"] = _as_bytes(json.dumps(plain, sort_keys=True).encode())
        return _as_bytes(safetensors.torch.save(tensors))

    def set_extra_state(self, state: Any) -> None:
        tensors = safetensors.torch.load(state.cpu().numpy().tobytes())
        super().set_extra_state(tensors.pop("generator"))
        plain = json.loads(tensors.pop("plain").numpy().tobytes())
        arrays = {key for key, value in self._values() if isinstance(value, np.ndarray)}
        values = {key: _decode(value) for key, value in plain.items()}
        values |= {key: tensor.numpy() if key in arrays else tensor for key, tensor in tensors.items()}
        for key, value in values.items():
            group, path, name = key.split("/")
            setattr(self.copies[int(group)].get_submodule(path), name, value)
        for module in (part for whole in self.copies for part in whole.modules()):
            getattr(module, "_init_optim_problem", lambda: None)()  # which NashMTL does on its first step only

    def _values(self) -> Iterator[tuple[str, Any]]:
        """All that may be state in TorchJD's modules, under "group/module/attribute"."""
        for group, whole in enumerate(self.copies):
            for path, module in whole.named_modules():
                for name, value in {**vars(module), **module._buffers}.items():
                    if name != "training" and isinstance(value, int | float | tuple | Tensor | np.ndarray | None):
                        yield f"{group}/{path}/{name}", value


class TorchJDWeighting(_TorchJD, GramMethod):
    """A TorchJD weighting of the Gram matrix. See `torchjd`."""

    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        assert len(grams) == len(self.copies)
        with self._called(grams.device):
            return torch.stack([self._result(group, gram) for group, gram in enumerate(grams)])


class TorchJDAggregator(_TorchJD, RowsMethod):
    """A TorchJD aggregator of the whole matrix. See `torchjd`."""

    def combine(self, rows: Tensor, group: int = 0) -> Tensor:
        """See `RowsMethod`. Low-precision rows are combined in fp32. NashMTL leaves zero where all rows are zero."""
        computed = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
        if type(self.copies[group]).__name__ in UNDEFINED_AT_ZERO and torch.linalg.vector_norm(computed).square() == 0:
            return torch.zeros_like(rows[0])
        with self._called(rows.device):
            return self._result(group, computed).to(rows.dtype)


def _as_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _encode(value: Any) -> Any:
    """JSON for the keys by which TorchJD knows its state, such as (3, torch.float64, device("cpu"))."""
    if isinstance(value, tuple):
        return [_encode(part) for part in value]
    return str(value) if isinstance(value, torch.dtype | torch.device) else value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(part) for part in value)
    if not isinstance(value, str):
        return value
    return getattr(torch, value.removeprefix("torch.")) if value.startswith("torch.") else torch.device(value)

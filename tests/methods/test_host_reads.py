"""How often a step waits for the device: reads of what the model's tensors have become, counted on the CPU."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multitune.methods.base import CombiningMethod
from multitune.methods.combiner import Combiner
from multitune.methods.torchjd import torchjd
from networks import METHODS, TASKS, Net, batches

READS = {"cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__contains__"}
SIZE_FROM_VALUES = {"nonzero", "masked_select", "unique", "equal", "allclose"}


class Reads(TorchFunctionMode):
    """Counts what a device would have to be waited for: reads of its tensors and of all that is made of them."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        for tensor in tensors:
            self._mark(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        marked = any(hasattr(leaf, "_of_device") for leaf in tree_leaves((args, kwargs)))
        result, name = func(*args, **kwargs), getattr(func, "__name__", "")
        if not marked:
            return result
        by_mask = name == "__getitem__" and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1:])
        )
        repeats = name == "repeat_interleave" and isinstance(args[1], Tensor) and "output_size" not in kwargs
        if name in READS or (name == "to" and "cpu" in args):
            self.count[name] += 1
            return result.clone() if isinstance(result, Tensor) else result
        if name in SIZE_FROM_VALUES or by_mask or repeats:
            self.count[name] += 1
        if name == "__iter__":
            result = list(result)
        in_place = args[:1] if name.rstrip("_") != name else ()
        for leaf in tree_leaves((result, in_place, kwargs.get("out"))):
            if isinstance(leaf, Tensor):
                self._mark(leaf)
        return iter(result) if name == "__iter__" else result

    @staticmethod
    def _mark(tensor: Tensor) -> None:
        tensor._of_device = True  # type: ignore[attr-defined]


class ScalarReads(TorchDispatchMode):
    """Counts reads of scalars and sizes from values, of any tensor, the methods' own arithmetic on the CPU included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = str(func)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "repeat_interleave")):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def test_the_counters_count() -> None:
    on_device, on_cpu = torch.ones(3), torch.ones(3)
    with Reads([on_device]) as reads, ScalarReads() as scalars:
        assert (on_device * 2).sum() > 5
        assert float((on_cpu + on_device)[0]) == 2
        assert on_cpu.sum() == 3
        read = on_device.double().cpu()
        assert read.tolist() == [1.0] * 3
        on_device[on_device > 0].sum()
    assert reads.count == {"__bool__": 1, "__float__": 1, "cpu": 1, "__getitem__": 1}
    assert scalars.count["aten._local_scalar_dense.default"] == 3


ALL: dict[str, Callable[[], CombiningMethod]] = METHODS | {"TrimmedMean": lambda: torchjd("TrimmedMean", trim_number=1)}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("form", ["backward", "collect"])
@pytest.mark.parametrize("groups", ["whole_model", "all_matrix"])
def test_a_step_reads_the_device_once(name: str, form: str, groups: str) -> None:
    pytest.importorskip("torchjd")
    net = Net(torch.float32)
    with Reads(net.parameters()) as reads:
        combiner = Combiner(net.shared(), ALL[name](), groups=groups, heads=net.heads.parameters(), reduction="mean")
    assert not reads.count
    for step in range(3):
        net.zero_grad()
        data = batches(step, torch.float32)
        with Reads([data, *net.parameters()]) as reads, ScalarReads() as scalars:
            if form == "backward":
                combiner.backward((net.loss(t, data[t]) for t in range(TASKS)), tasks=range(TASKS))
            else:
                for task in range(TASKS):
                    loss = net.loss(task, data[task])
                    loss.backward()
                    combiner.collect(task, loss)
                combiner.apply()
        assert reads.count == {"cpu": 1}
        if name in METHODS:
            assert not scalars.count

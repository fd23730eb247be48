"""How often a step waits for the device: reads of what the model's tensors have become, counted on the CPU."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from device_reads import DeviceReads
from multitune.methods.base import CombiningMethod
from multitune.methods.combiner import Combiner
from multitune.methods.torchjd import torchjd
from networks import METHODS, TASKS, Net, batches


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
    device = DeviceReads([on_device])
    with device.counting(), ScalarReads() as scalars:
        assert (on_device * 2).sum() > 5
        assert float((on_cpu + on_device)[0]) == 2
        assert on_cpu.sum() == 3
        read = on_device.double().cpu()
        assert read.tolist() == [1.0] * 3
        on_device[on_device > 0].sum()
        on_device.repeat_interleave(on_device.long())
        on_device.repeat_interleave(on_device.long(), output_size=3)
        on_cpu.copy_(on_device)
        on_device.copy_(on_cpu)
        on_device.copy_(on_cpu, non_blocking=True)
        sent = [on_cpu.to(on_device.device), torch.tensor([1.0, 2.0], device=on_device.device)]
        assert [tensor.tolist() for tensor in sent] == [[1.0] * 3, [1.0, 2.0]]
    assert device.reads == {
        "_local_scalar_dense": 2,
        "cpu": 1,
        "index": 1,
        "repeat_interleave": 1,
        "copy_": 1,
        "tolist": 2,
    }
    assert device.uploads == {"copy_": 1, "to": 1, "tensor": 1}
    assert scalars.count["aten._local_scalar_dense.default"] == 3


def test_the_counter_follows_a_backward_pass() -> None:
    weight = torch.ones(3, requires_grad=True)
    device = DeviceReads([weight])
    with device.counting():
        (weight[weight > 0] * 2).sum().backward()
        assert weight.grad is not None
        assert weight.grad.sum() == 6
    assert device.reads == {"index": 1, "index_put": 1, "_local_scalar_dense": 1}


ALL: dict[str, Callable[[], CombiningMethod]] = METHODS | {"TrimmedMean": lambda: torchjd("TrimmedMean", trim_number=1)}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("form", ["backward", "collect"])
@pytest.mark.parametrize("groups", ["whole_model", "all_matrix"])
def test_a_step_reads_the_device_once(name: str, form: str, groups: str) -> None:
    pytest.importorskip("torchjd")
    net = Net(torch.float32)
    device = DeviceReads(net.parameters())
    with device.counting():
        combiner = Combiner(net.shared(), ALL[name](), groups=groups, heads=net.heads.parameters(), reduction="mean")
    assert not device.reads
    for step in range(3):
        net.zero_grad()
        data = batches(step, torch.float32)
        device.mark(data)
        with device.counting(), ScalarReads() as scalars:
            if form == "backward":
                combiner.backward((net.loss(t, data[t]) for t in range(TASKS)), tasks=range(TASKS))
            else:
                for task in range(TASKS):
                    loss = net.loss(task, data[task])
                    loss.backward()
                    combiner.collect(task, loss)
                combiner.apply()
        assert device.reads == {"cpu": 1}
        assert not device.uploads
        if name in METHODS:
            assert not scalars.count

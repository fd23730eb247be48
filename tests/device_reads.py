"""How often the host waits for the device, counted on the CPU by following what is made of the device's tensors.

On a card each of these makes the host wait until all that was launched before is done:

- reads of values: ``item()``, ``tolist()``, ``bool(tensor)``, ``.cpu()``, copies into a tensor of the host;
- results whose size depends on values: ``nonzero``, indices that are masks, ``unique``, ``repeat_interleave`` without
  ``output_size``;
- uploads that wait: ``torch.tensor(list, device=...)``, and a ``.to(device)`` or ``copy_`` of a host's tensor without
  ``non_blocking``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE, HOST = torch.device("cpu", 0), torch.device("cpu")
READS = ("_local_scalar_dense", "equal", "is_nonzero")
SIZE_FROM_VALUES = ("nonzero", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive", "bincount")
TO_HOST = ("cpu", "tolist", "numpy", "__array__")
FROM_LISTS = ("tensor", "as_tensor")


class DeviceReads:
    """Counts waits; the processor plays both the host (``HOST``) and the device (``DEVICE``).

    Tensors of the device are those that it is given, all that is sent to ``DEVICE`` or made on it, and all that
    operations, a backward pass's too, make of these. What is read from it is the host's.

    Attributes:
        reads: operation -> how often values or sizes were read.
        uploads: operation -> how often something of the host was sent over and waited for.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.reads: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self._storages: dict[int, Any] = {}
        self.mark(list(tensors))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """A context that counts, from zero."""
        self.reads.clear()
        self.uploads.clear()
        with _Functions(self), _Operations(self):
            yield

    def has(self, *values: Any) -> bool:
        """Whether any tensor in ``values`` is the device's."""
        return any(tensor.untyped_storage()._cdata in self._storages for tensor in _tensors(values))

    def mark(self, *values: Any) -> None:
        """Note that the tensors in ``values`` are the device's."""
        for tensor in _tensors(values):
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = storage  # held, so that no other one gets its number

    def sent(self, tensor: Tensor) -> Tensor:
        """A copy of the host's tensor that is the device's."""
        copy = tensor.clone()
        self.mark(copy)
        return copy

    def fetched(self, tensor: Tensor) -> Tensor:
        """A copy of the device's tensor that is the host's."""
        copy = tensor.clone()
        self._storages.pop(copy.untyped_storage()._cdata, None)
        return copy


class _Functions(TorchFunctionMode):
    """What does not reach the dispatcher where host and device are one."""

    def __init__(self, device: DeviceReads) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        device, name, kwargs = self._device, getattr(func, "__name__", ""), kwargs or {}
        result, there, given = func(*args, **kwargs), device.has(args[:1]), [*args[1:], *kwargs.values()]
        if isinstance(result, torch.device):
            return DEVICE if there else result
        if there and (name in TO_HOST or (name == "to" and ("cpu" in given or HOST in given))):
            device.reads[name] += 1
            return device.fetched(result) if isinstance(result, Tensor) else result
        if not there and DEVICE in given and isinstance(result, Tensor):
            if result.numel() and (name in FROM_LISTS or (name == "to" and not kwargs.get("non_blocking"))):
                device.uploads[name] += 1
            return device.sent(result)
        return result


class _Operations(TorchDispatchMode):
    """What operations make of the device's tensors."""

    def __init__(self, device: DeviceReads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        device, kwargs = self._device, kwargs or {}
        name: str = func.overloadpacket.__name__
        if name == "copy_":
            self._count_copy(*args, **kwargs)
            return func(*args, **kwargs)
        there = device.has(args, kwargs)
        if there and (name in READS or name in SIZE_FROM_VALUES or _takes_size_from_values(name, args, kwargs)):
            device.reads[name] += 1
        result = func(*args, **kwargs)
        if there:
            device.mark(result)
        return result

    def _count_copy(self, into: Tensor, origin: Tensor, non_blocking: bool = False) -> None:
        here, there = self._device.has(origin), self._device.has(into)
        if here and not there:
            self._device.reads["copy_"] += 1
        elif there and not here and origin.ndim and not non_blocking:
            self._device.uploads["copy_"] += 1


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in what a call gets or returns."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _takes_size_from_values(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    if name.strip("_").startswith("index"):
        indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
    return name == "repeat_interleave" and kwargs.get("output_size") is None

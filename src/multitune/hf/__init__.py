"""multitune at home in the Hugging Face stack: a Trainer, a mixin for TRL's, batches of one language each.

transformers is imported when a trainer is first asked for; ``OneTaskBatches`` needs torch alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitune.hf.batches import OneTaskBatches
    from multitune.hf.mixin import MultitaskMixin
    from multitune.hf.trainer import MultitaskTrainer

__all__ = ["MultitaskMixin", "MultitaskTrainer", "OneTaskBatches"]

_HOMES = {"MultitaskMixin": "mixin", "MultitaskTrainer": "trainer", "OneTaskBatches": "batches"}
"""Public name -> the module that has it."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(f"multitune.hf.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'multitune.hf' has no attribute {name!r}")

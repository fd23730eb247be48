"""What a lack of memory looks like."""

import torch

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""In the message of the plain RuntimeError that torch raises on the CPU."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there was not enough memory, on the CPU or on a device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY in str(error)

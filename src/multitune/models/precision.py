"""Where the forward pass may run in bf16 or fp16."""

from contextlib import AbstractContextManager, nullcontext

import torch

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(precision: str, device: torch.device) -> str:
    """``auto`` becomes bf16 where the device has instructions for it, else fp32; anything else stays."""
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(device) else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run faster than fp32 ones: on the CPU, AVX512_BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "amx_tile"))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The forward pass in bf16 or fp16 with fp32 weights, or as it is."""
    half = HALVES.get(resolve(precision, device))
    return nullcontext() if half is None else torch.autocast(device.type, dtype=half)

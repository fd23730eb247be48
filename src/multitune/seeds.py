"""Random generators by purpose: every draw of a run comes from one of these."""

import hashlib

import torch


def seeded(*parts: int | str) -> torch.Generator:
    """A generator whose seed is a hash of the parts, the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)

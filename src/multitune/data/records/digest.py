"""Hashes of records' content, wherever they are kept."""

import hashlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from multitune.data.records.rows import Row, Rows
from multitune.data.records.spool import Spooled

_known: WeakKeyDictionary[Rows, str] = WeakKeyDictionary()  # rows never change: one that was hashed keeps its hash


def digest(records: Sequence[Row]) -> str:
    """The BLAKE2b hash of the records as MessagePack, in their order; the same wherever they are kept."""
    if not isinstance(records, Rows):
        return _hash(records)
    if records not in _known:
        _known[records] = _hash(records)
    return _known[records]


def number_of(content: Any) -> int:
    """A number of 64 bits for a text, a list of words or an array: the same wherever it stands."""
    data = repr(content).encode() if isinstance(content, str | list) else content.tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _hash(records: Sequence[Row]) -> str:
    content = hashlib.blake2b(digest_size=16)
    for block in records.blocks() if isinstance(records, Spooled) else map(_encoded, records):
        content.update(block)
    return content.hexdigest()


def _plain(value: Any) -> tuple[str, tuple[int, ...], bytes]:
    """What tells an array (an image, a number of NumPy's) from others."""
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"a record holds a {type(value).__name__}: plain values and arrays of numbers can be hashed")
    return array.dtype.str, array.shape, array.tobytes()


_encoded = msgspec.msgpack.Encoder(enc_hook=_plain).encode

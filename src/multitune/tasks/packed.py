"""Texts of a batch laid end to end in one row: no padding, and what all of them begin with computed once.

Position numbers begin anew in each text, and attention stays within it (models/packing.py), so that every state, loss
and gradient is that of the padded batch. A beginning that all texts share (a system prompt, the template's marks) has
the same states in each of them, as no token sees those that follow.
"""

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from multitune.tasks.task import IGNORED, Example, Inputs, padded_rows

NOWHERE = -1
"""The place in the row of a token that a text does not have."""


def packed(examples: Sequence[Example]) -> tuple[Inputs, Tensor]:
    """A row of all tokens, and its labels [1, tokens]; the label of a text's first own token is ``IGNORED``.

    ``input_ids`` and ``position_ids`` are [1, tokens]. ``attention_mask`` [1, 1, texts, length] has whole numbers: the
    places in the row of each text's tokens, in order, then ``NOWHERE``.
    """
    shared = _shared(examples)
    own = [len(example["input_ids"]) - shared for example in examples]
    begins = shared + np.cumsum([0, *own[:-1]])
    places = [[*range(shared), *range(begin, begin + count)] for begin, count in zip(begins, own, strict=True)]
    positions = [np.arange(shared), *(np.arange(shared, shared + count) for count in own)]
    inputs = {
        "input_ids": _row(examples, "input_ids", shared),
        "position_ids": torch.from_numpy(np.concatenate(positions))[None],
        "attention_mask": padded_rows(places, NOWHERE)[None, None],
    }
    return inputs, _row(examples, "labels", shared)


def _row(examples: Sequence[Example], name: str, shared: int) -> Tensor:
    """Numbers of all examples one behind the other, the first ``shared`` once, [1, tokens]."""
    parts = [np.asarray(examples[0][name])[:shared], *(np.asarray(example[name])[shared:] for example in examples)]
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))[None]


def _shared(examples: Sequence[Example]) -> int:
    """How many tokens all examples begin with alike, of which none, nor the next, is learnt."""
    if len(examples) == 1:
        return 0
    columns = zip(*(example["input_ids"] for example in examples), strict=False)
    alike = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    learnt = (np.flatnonzero(np.asarray(example["labels"]) != IGNORED) for example in examples)
    first = min((int(where[0]) for where in learnt if len(where)), default=alike + 1)
    return max(0, min(alike, first - 1, *(len(example["input_ids"]) - 1 for example in examples)))

"""What methods are called in sentences and tables, and what a page says of each."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from multitune.plans import TORCHJD, listed

NAMES = {
    "mixed": "Ordinary fine-tuning",
    "mtl": "Joint training",
    "stl": "A model for each task",
    "sequential": "Single-task steps",
    "sequential_reptile": "Sequential Reptile",
    "reptile": "Reptile",
    "lookahead": "Lookahead with mixed batches",
    "fish": "Fish",
    "gradnorm": "GradNorm",
    "pcgrad": "PCGrad",
    "gradvac": "Gradient Vaccine",
    "famo": "FAMO",
    "recadam": "RecAdam",
    "swep": "SWEP",
}
"""The titles of the methods' pages in docs/methods."""
ARXIV = "https://arxiv.org/abs/"
NUMBER = re.compile(r"\b(\d{4}\.\d{5})\b")
"""Of a paper on arXiv."""


@dataclass(frozen=True)
class MethodEntry:
    """What a report says of a method.

    Attributes:
        method: as recipes name it.
        page: of the documentation; empty for a plugin's.
    """

    method: str
    name: str
    summary: str
    paper: str
    page: str


def full(method: str) -> str:
    """The full name; of TorchJD's methods theirs, of a plugin's the one that recipes use."""
    if method.startswith(TORCHJD):
        return f"{method.removeprefix(TORCHJD)} (TorchJD)"
    return NAMES.get(method, method)


def anchor(method: str) -> str:
    """The id of a method's entry in the page."""
    return "method-" + "".join(letter if letter.isalnum() else "-" for letter in method)


def linked(paper: str) -> Markup:
    """A paper as HTML, with links to arXiv: all in a page that leads to the network, and only when pressed."""
    return Markup(NUMBER.sub(rf'<a href="{ARXIV}\1" rel="noreferrer">\1</a>', str(escape(paper))))


def entries(methods: Iterable[str]) -> list[MethodEntry]:
    """The methods that are known here: one of a plugin that is not installed is left out."""
    plans = listed()
    found = []
    for method in methods:
        of_torchjd = method.startswith(TORCHJD)
        plan = plans.get(f"{TORCHJD}NAME" if of_torchjd else method)
        if plan is not None:
            page = "torchjd" if of_torchjd else method if method in NAMES else ""
            found.append(
                MethodEntry(method, full(method), plan.summary, plan.paper, page and f"docs/methods/{page}.md")
            )
    return found

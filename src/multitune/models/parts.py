"""The parts of a pretrained model that recipes name: its embeddings and its layers."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from multitune.errors import UserError

ENCODER, EMBEDDINGS = "encoder", "embeddings"
_NUMBER = re.compile(r"(?:^|\.)(\d+)\.")
_WANTED = re.compile(r"((?:decoder )?layers?) (\d+)(?:-(\d+))?")


@final
@dataclass(frozen=True)
class Parts:
    """Which of a model's weights belong together, by their names.

    Attributes:
        pretrained: all that pretraining left: the part ``encoder``.
        embeddings: those below all layers: of the module that holds the word embeddings (or an image's), of all other
            embeddings (positions, types), and of norms and projections before the first layer.
        layers: "layers", and "decoder layers" where there is a decoder -> number, from 0 -> the names of its weights. A
            layer's number is the first one in a name, as in the groups of ``all_layer``.
    """

    pretrained: tuple[str, ...]
    embeddings: frozenset[str]
    layers: Mapping[str, Mapping[int, Sequence[str]]]

    def named(self, wanted: str) -> Collection[str]:
        """The weights of a part: ``encoder``, ``embeddings``, ``layers 3``, ``layers 0-1`` or ``decoder layers 0-1``.

        Raises:
            UserError: there is no such part; the message names those that there are.
        """
        if wanted == ENCODER and self.pretrained:
            return self.pretrained
        if wanted == EMBEDDINGS and self.embeddings:
            return self.embeddings
        if (range_of_layers := _WANTED.fullmatch(wanted)) is not None:
            layers = self.layers.get(range_of_layers[1].removesuffix("s") + "s", {})
            first, last = int(range_of_layers[2]), int(range_of_layers[3] or range_of_layers[2])
            if first <= last and first in layers and last in layers:
                return [name for number in range(first, last + 1) for name in layers.get(number, ())]
        raise UserError(f"freeze: {wanted!r} is no part of this model; it has {', '.join(self._listed())}")

    def rate_shares(self, decay: float) -> dict[str, float]:
        """Name -> decay^(L - l) for the weights of layer l of L, decay^(L + 1) for embeddings; 1 for all others.

        The layers of an encoder and of its decoder are counted each from its own top, the embeddings from the longer.
        """
        shares = dict.fromkeys(self.pretrained, 1.0)
        deepest = max((max(layers) + 1 for layers in self.layers.values()), default=0)
        for layers in self.layers.values():
            top = max(layers) + 1
            shares |= {name: decay ** (top - number) for number, names in layers.items() for name in names}
        return shares | dict.fromkeys(self.embeddings, decay ** (deepest + 1))

    def _listed(self) -> list[str]:
        single = [ENCODER] * bool(self.pretrained) + [EMBEDDINGS] * bool(self.embeddings)
        return [*single, *(f"{stack} {min(layers)}-{max(layers)}" for stack, layers in self.layers.items())]


def parts(model: nn.Module, embedding: nn.Module | None, pretrained: Iterable[str]) -> Parts:
    """The parts of a model.

    Args:
        model: with its head, or with several.
        embedding: the one within it that reads the input; None where it has none.
        pretrained: the names of the weights that pretraining left.
    """
    names = tuple(pretrained)
    layers: dict[str, dict[int, list[str]]] = {}
    for name in names:
        if (number := _NUMBER.search(name)) is not None:
            layers.setdefault(_stack(name[: number.start()]), {}).setdefault(int(number[1]), []).append(name)
    embeddings = {*_embeddings(model, embedding, names), *_below_layers(model, names)}
    return Parts(names, frozenset(embeddings), layers)


def _stack(name: str) -> str:
    return "decoder layers" if "decoder" in name else "layers"


def _below_layers(model: nn.Module, names: Sequence[str]) -> Iterator[str]:
    """The weights in no layer that are embeddings' by type or name, or come before the first layer of their stack."""
    tables = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Embedding)}
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if (number := _NUMBER.search(name)) is not None:
            first.setdefault(_stack(name[: number.start()]), place)
    in_none = ((place, name) for place, name in enumerate(names) if _NUMBER.search(name) is None)
    for place, name in in_none:
        if name in tables or "embedding" in name or place < first.get(_stack(name), 0):
            yield name


def _embeddings(model: nn.Module, embedding: nn.Module | None, names: Sequence[str]) -> Iterable[str]:
    """The weights of the module around the embedding, or of the embedding alone where that one has layers too."""
    path = next((path for path, module in model.named_modules() if module is embedding), None)
    if not path:
        return []
    around = path.rpartition(".")[0]
    beside = [name for name in names if name.startswith(f"{around}.")]
    whole = bool(around) and not any(_NUMBER.search(name) for name in beside)
    return beside if whole else [name for name in names if name.startswith(f"{path}.")]

"""One look a method in every picture: the report's page, its figures, the synthetic experiment."""

import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        light: colour on white, with a contrast of 3 at least.
        dark: colour on the page's dark background, likewise.
        marker: matplotlib's letter; readers who tell no colours apart have the shape.
    """

    light: str
    dark: str
    marker: str


LIGHT_BACKGROUND, DARK_BACKGROUND = "#ffffff", "#15171c"

LOOKS = {
    "mixed": Look("#2f4f9f", "#8ea9f0", "s"),
    "mtl": Look("#000000", "#f2f2f2", "o"),
    "stl": Look("#6e6e6e", "#a5a5a5", "d"),
    "sequential": Look("#cc6677", "#e58a98", "X"),
    "sequential_reptile": Look("#ee3311", "#ff6b4a", "o"),
    "reptile": Look("#117733", "#3fb56b", "s"),
    "lookahead": Look("#aa4499", "#d67bc6", "<"),
    "fish": Look("#882255", "#c96a9c", ">"),
    "gradnorm": Look("#b07d0a", "#ddaa33", "P"),
    "pcgrad": Look("#1a8fc0", "#33bbee", "^"),
    "gradvac": Look("#332288", "#9488ec", "D"),
    "famo": Look("#8c510a", "#c98a4b", "p"),
    "recadam": Look("#7f7f20", "#b5b54a", "v"),
    "swep": Look("#005f73", "#4fa8ba", "h"),
    "upgrad": Look("#2a8c7c", "#44aa99", "*"),
    "pretrained": Look("#6e6e6e", "#a5a5a5", "|"),
}
"""After Paul Tol's schemes, which colour-blind readers can tell apart; some are darker than his, to be seen on white.
``pretrained`` is the model before training, which some pictures show beside the methods."""

OTHERS = (
    Look("#4477aa", "#77aadd", "*"),
    Look("#995533", "#dd9977", "h"),
    Look("#557722", "#99bb55", "p"),
    Look("#775588", "#bb99cc", "d"),
)


def look(method: str) -> Look:
    """The look of a method by the name that recipes use; the same one in every picture, for any name."""
    return LOOKS.get(method) or OTHERS[zlib.crc32(method.encode()) % len(OTHERS)]

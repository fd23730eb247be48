"""The one table of looks: seen on either background, and each method's own."""

import pytest

from multitune.plans import METHODS
from multitune.reports.charts import SHAPES
from multitune.reports.colours import DARK_BACKGROUND, LIGHT_BACKGROUND, LOOKS, OTHERS, Look, look


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("shown", [*LOOKS.values(), *OTHERS], ids=str)
def test_colours_are_seen_on_their_background(shown: Look) -> None:
    assert contrast(shown.light, LIGHT_BACKGROUND) >= 3
    assert contrast(shown.dark, DARK_BACKGROUND) >= 3
    assert shown.marker in SHAPES


def test_every_method_has_a_look_of_its_own() -> None:
    assert set(METHODS) <= set(LOOKS)
    assert len({shown.light for shown in LOOKS.values()}) >= len(METHODS) + 1
    assert (
        len({(shown.light, shown.marker) for shown in LOOKS.values() if shown is not LOOKS["pretrained"]})
        == len(LOOKS) - 1
    )


def test_methods_without_one_have_the_same_in_every_process() -> None:
    others = [OTHERS.index(look(f"torchjd:{name}")) for name in ("MGDA", "UPGrad", "CAGrad", "Krum")]
    assert others == [2, 1, 1, 0]

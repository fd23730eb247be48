"""The page about the run folder is what the types say."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from multitune.results import document

PAGE = Path(__file__).parents[2] / "docs" / "run-folder.md"


def test_the_page_is_made_of_the_types() -> None:
    assert PAGE.read_text(encoding="utf-8") == document.page(), (
        "python -m multitune.results.document > docs/run-folder.md"
    )


def test_every_key_has_its_row() -> None:
    page = document.page()
    for kind in document.FILES:
        for field in fields(kind):
            assert f"| `{field.name}` | " in page


def test_every_link_leads_to_a_heading() -> None:
    text = document.page()
    anchors = {document.anchor(line.lstrip("#").strip()) for line in text.splitlines() if line.startswith("#")}
    links = {part.partition(")")[0] for part in text.split("](#")[1:]}
    assert len(links) > 20
    assert links <= anchors


@dataclass
class Undescribed:
    """A type.

    Attributes:
        first: is described,
            in two lines.
    """

    first: int
    second: int


def test_a_key_without_a_description_is_noticed() -> None:
    assert document.described(Undescribed) == ("A type.", {"first": "is described, in two lines"})
    with pytest.raises(KeyError, match="second"):
        list(document.section(Undescribed))

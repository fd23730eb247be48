"""Entity tags in the schemes that people write, as IOB2: every entity begins with B-TYPE, and goes on with I-TYPE."""

from collections.abc import Callable, Mapping, Sequence

from multitune.data.bad import BadRecord

Convert = Callable[[Sequence[str]], list[str]]
"""Turns a sentence's tags into IOB2; raises ``BadRecord`` where they are not of its scheme."""


def check_iob2(tags: Sequence[str]) -> None:
    """Raise ``BadRecord`` where a sentence's tags are not IOB2."""
    for label, (previous, tag) in enumerate(zip(["O", *tags], tags, strict=False)):
        kind, _, entity = tag.partition("-")
        if tag != "O" and (kind not in ("B", "I") or not entity):
            raise BadRecord(f"tag {tag!r} is not IOB2: O, B-TYPE or I-TYPE is allowed{_way_out(tag)}", label)
        if kind == "I" and previous not in (f"B-{entity}", tag):
            begins = f"an entity begins with B-{entity}; scheme: iob1 converts it"
            raise BadRecord(f"{tag!r} after {previous!r} is not IOB2: {begins}", label)


def _way_out(tag: str) -> str:
    """The recipe key that makes IOB2 of such a tag."""
    if tag.isdecimal():
        return "; label_names: says what numbers stand for"
    return "; scheme: bioes converts it" if tag[:2] in ("E-", "S-", "L-", "U-") else ""


def from_iob2(tags: Sequence[str]) -> list[str]:
    """The tags as they are, checked."""
    check_iob2(tags)
    return list(tags)


def from_iob1(tags: Sequence[str]) -> list[str]:
    """IOB1 (Ramshaw and Marcus 1995, as CoNLL-2003 is published): B- only divides two entities of one type."""
    converted = []
    for label, (previous, tag) in enumerate(zip(["O", *tags], tags, strict=False)):
        prefix, entity = _parts(tag, "iob1", "BI", label)
        begins = prefix == "I" and previous[2:] != entity
        converted.append(f"B-{entity}" if begins else tag)
    return converted


def from_bioes(tags: Sequence[str]) -> list[str]:
    """BIOES: E- ends an entity of several tokens, S- is one of a single token; BILOU calls them L- and U-."""
    converted: list[str] = []
    for label, tag in enumerate(tags):
        prefix, entity = _parts(tag, "bioes", "BIESLU", label)
        inside = prefix in ("I", "E", "L")
        if inside and (label == 0 or tags[label - 1] not in (f"B-{entity}", f"I-{entity}")):
            before = tags[label - 1] if label else "O"
            raise BadRecord(f"{tag!r} after {before!r} is not BIOES: an entity begins with B-{entity}", label)
        converted.append(f"{'I' if inside else 'B'}-{entity}" if prefix else tag)
    return converted


def _parts(tag: str, scheme: str, prefixes: str, label: int) -> tuple[str, str]:
    """The prefix and the type of a tag, two empty texts for O."""
    prefix, _, entity = tag.partition("-")
    if tag == "O":
        return "", ""
    if not entity or len(prefix) != 1 or prefix not in prefixes:
        allowed = ", ".join(f"{each}-TYPE" for each in prefixes)
        raise BadRecord(f"tag {tag!r} is not of scheme: {scheme}: O, {allowed} are allowed", label)
    return prefix, entity


SCHEMES: Mapping[str, Convert] = {"iob1": from_iob1, "iob2": from_iob2, "bioes": from_bioes}
"""What ``scheme:`` names -> how its tags become IOB2. Each leaves IOB2 as it is."""

"""Hashes of the records that a run saw: by them changed data are told apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

ByLanguage = dict[Annotated[str, "language"], str]
Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
FEW = 5
"""Languages that are named of a split."""


@dataclass(frozen=True)
class Digests:
    """Hashes (BLAKE2b) of the records as the run had them: after its limits, in their order.

    Attributes:
        train: training language -> the hash of its training records.
        dev: training language -> that of its dev records.
        test: language -> that of its test records.
        replay: that of the replayed texts, where they are of a data set of their own; else null.
    """

    train: ByLanguage = field(default_factory=dict)
    dev: ByLanguage = field(default_factory=dict)
    test: ByLanguage = field(default_factory=dict)
    replay: str | None = None

    def of(self, split: Split) -> ByLanguage:
        """Language -> hash, of one split."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[split]

    def changes(self, now: "Digests", splits: Sequence[Split] = SPLITS) -> str:
        """What differs between these records and others, in words; empty where nothing does.

        The replayed texts count with the training records.
        """
        different = {split: sorted(_different(self.of(split), now.of(split))) for split in splits}
        said = [f"the {split} records of {named(languages)}" for split, languages in different.items() if languages]
        said += ["the replayed texts"] if "train" in splits and self.replay != now.replay else []
        return " and ".join(said)

    def shared(self, other: "Digests") -> "Digests":
        """The hashes of languages that ``other`` has, too, without those of replayed texts."""
        train, dev, test = (
            {language: hash for language, hash in self.of(split).items() if language in other.of(split)}
            for split in SPLITS
        )
        return Digests(train, dev, test)


def tested_differently(runs: Mapping[str, Digests | None]) -> Iterator[tuple[str, str, str]]:
    """Each language that two runs were tested in, on different records, with the names of the two.

    Args:
        runs: name -> what the run saw, None where it does not say.
    """
    first: dict[str, tuple[str, str]] = {}
    for name, digests in runs.items():
        for language, hash in digests.test.items() if digests is not None else ():
            other, met = first.setdefault(language, (name, hash))
            if met != hash:
                yield language, other, name


def named(languages: Sequence[str]) -> str:
    """Some languages in words; of many the first few and how many more there are."""
    more = [f"{len(languages) - FEW} more"] if len(languages) > FEW else []
    *most, last = [*languages[:FEW], *more]
    return f"{', '.join(most)} and {last}" if most else last


def _different(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    return (language for language in before.keys() | now.keys() if before.get(language) != now.get(language))

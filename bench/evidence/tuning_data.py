"""Folders made of published data: a tuning dev that is cut from train, test rows that are alike in all languages.

They are made in the work folder, never in the repository.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from plan import Setting

PREMISES = 300
"""Of XNLI's test set."""
HYPOTHESES = 3
"""Rows in a row that share a premise."""


def folder(setting: Setting, published: Path, work: Path) -> Path | None:
    """The folder with a setting's data, made where it has to be; None where they come from a package."""
    if not setting.prepared:
        return published / setting.published if setting.published else None
    out = work / setting.prepared
    if not out.exists():
        beside = out.with_name(f".{out.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        PREPARED[setting.prepared](published, beside)
        beside.rename(out)
    return out


def panx_tuning(published: Path, out: Path) -> None:
    """PAN-X's train in two parts: a tenth of its sentences, by hash, are dev; the published dev stays away."""
    for path in sorted((published / "panx").glob("train-*.tsv")):
        sentences = path.read_text(encoding="utf-8").strip("\n").split("\n\n")
        parts: dict[bool, list[str]] = {False: [], True: []}
        for sentence in sentences:
            parts[_hash(sentence) % 10 == 0].append(sentence)
        (out / path.name).write_text("\n\n".join(parts[False]) + "\n", encoding="utf-8")
        dev = out / path.name.replace("train-", "dev-")
        dev.write_text("\n\n".join(parts[True]) + "\n", encoding="utf-8")


def xnli_parallel(published: Path, out: Path) -> None:
    """XNLI's dev as it is, and of its test the rows of some premises, which hash chooses: the same in all languages."""
    source = published / "xnli"
    english = (source / "test-en.tsv").read_text(encoding="utf-8").splitlines()
    order = sorted(range(len(english) // HYPOTHESES), key=lambda place: _hash(english[place * HYPOTHESES]))
    rows = [place * HYPOTHESES + each for place in sorted(order[:PREMISES]) for each in range(HYPOTHESES)]
    for path in sorted([*source.glob("test-*.tsv"), source / "test.labels.txt"]):
        lines = path.read_text(encoding="utf-8").split("\n")
        (out / path.name).write_text("".join(f"{lines[row]}\n" for row in rows), encoding="utf-8")
    for path in source.glob("dev-*.tsv"):
        shutil.copyfile(path, out / path.name)


PREPARED: dict[str, Callable[[Path, Path], None]] = {"panx-tuning": panx_tuning, "xnli-parallel": xnli_parallel}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())

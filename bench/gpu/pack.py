"""Pack what a bare machine with a card needs for run.py: this repository, wheels, PAN-X, an encoder cut to its tokens.

python bench/gpu/pack.py [--data FOLDER] [--wheels FOLDER] [--train N] [--test N] [--out runs/gpu/pack.tar]

The encoder's weights are four-bit numbers times a scale of 32 of them; the pack keeps them so, to the last bit. It
refuses to grow beyond 60 MiB.
"""

import argparse
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

from multitune.models import offline
from multitune.models.shipped_vocabulary import ShippedVocabulary

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("MULTITUNE_DATA", ROOT.parent / "shared" / "data"))
LARGEST = 60 * 2**20
BLOCK = 32
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
PARTS = ("src", "bench", "recipes", "tests", "pyproject.toml")

Weights = dict[str, NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack what bench/gpu/run.py needs.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of published data")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--train", type=int, default=4000, help="training sentences a language")
    parser.add_argument("--test", type=int, default=300, help="reported sentences a language")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu" / "pack.tar")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts = panx(given.data / "panx", folder / "panx", given.train, given.test)
        encoder(texts, folder / "encoder")
        repository(folder / "repository.tar.gz")
        for wheel in sorted(given.wheels.glob("*.whl")) if given.wheels else []:
            (folder / "wheels").mkdir(exist_ok=True)
            (folder / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
        with tarfile.open(given.out, "w") as tar:
            tar.add(folder, arcname="pack")
    size = given.out.stat().st_size
    if size > LARGEST:
        given.out.unlink()
        raise SystemExit(f"{given.out}: would have {size / 2**20:.1f} MiB, more than 60; give a smaller --train")
    print(f"{given.out}: {size / 2**20:.1f} MiB")


def panx(source: Path, out: Path, train: int, test: int) -> set[str]:
    """Copy the first sentences of each file; the words that they have."""
    out.mkdir(parents=True)
    words: set[str] = set()
    for path in sorted([*source.glob("train-??.tsv"), *source.glob("dev-??.tsv")]):
        sentences = path.read_text(encoding="utf-8").strip("\n").split("\n\n")
        kept = sentences[: train if path.name.startswith("train") else test]
        (out / path.name).write_text("\n\n".join(kept) + "\n", encoding="utf-8")
        words |= {line.split("\t")[0] for sentence in kept for line in sentence.splitlines()}
    return words


def encoder(words: set[str], out: Path) -> None:
    """The offline encoder with the embedding rows of these words' tokens, its matrices as blocks."""
    source = offline.directory()
    tokenizer = AutoTokenizer.from_pretrained(source)
    encoded = tokenizer(sorted(words), add_special_tokens=False)["input_ids"]
    AutoModel.from_pretrained(source, add_pooling_layer=False).save_pretrained(out)
    tokenizer.save_pretrained(out)
    ShippedVocabulary(tokenizer, {token for ids in encoded for token in ids}).cut(out, WORD_EMBEDDINGS)
    weights: Weights = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    blocks: dict[str, Any] = dict(in_blocks(weights))
    np.savez_compressed(out / "blocks.npz", **blocks)


def in_blocks(weights: Weights) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Arrays by name: ``NAME:scales`` and ``NAME:pairs`` of a weight that is four bits times a scale, else itself."""
    for name, weight in weights.items():
        found = as_blocks(weight) if weight.ndim > 1 and weight.size % BLOCK == 0 else None
        if found is None:
            yield name, weight
        else:
            scales, numbers = found
            yield f"{name}:scales", scales
            yield f"{name}:pairs", numbers[:, ::2] | numbers[:, 1::2] << 4
            yield f"{name}:shape", np.array(weight.shape)


def as_blocks(weight: NDArray[np.float32]) -> tuple[NDArray[np.float16], NDArray[np.uint8]] | None:
    """Scales d, [n], and numbers q, [n, 32], with (q - 8) d the weight exactly; None where there are none."""
    rows = weight.reshape(-1, BLOCK)
    place = abs(rows).argmax(1)
    largest = rows[np.arange(len(rows)), place]
    scales, numbers = np.zeros(len(rows), np.float16), np.full(rows.shape, 8, np.uint8)
    left = np.flatnonzero(largest)
    for divisor in (-8, *range(7, 0, -1), *range(-1, -8, -1)):
        tried = (largest[left] / divisor).astype(np.float16)
        known = np.where(tried == 0, np.float16(1), tried).astype(np.float32)[:, None]
        q = np.clip(np.rint(rows[left] / known), -8, 7)
        exact = (q * known == rows[left]).all(1)
        scales[left[exact]], numbers[left[exact]] = tried[exact], (q[exact] + 8).astype(np.uint8)
        left = left[~exact]
    return None if len(left) else (scales, numbers)


def repository(out: Path) -> None:
    """The committed files that a run needs."""
    archive = subprocess.run(["git", "archive", "HEAD", *PARTS], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as plain, tarfile.open(out, "w:gz") as packed:
        for member in plain:
            packed.addfile(member, plain.extractfile(member) if member.isfile() else None)


if __name__ == "__main__":
    main()

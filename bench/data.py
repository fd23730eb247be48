"""From files to a run that is ready to train, and from logits to answers: seconds and memory of the data path.

    python bench/data.py [--languages N] [--path data/xquad]

1. Tables of 2,000 and of 20,000 sentences a language (``data: folder``, one JSONL file each): read, checked, divided,
   tokenised and stored, each size in a process of its own, first with an empty cache, then again. A sentence is one to
   three of the assistant data set's, drawn by a seed. "ready" includes loading offline:e5-small; MiB are the peak of
   memory, us microseconds of a batch of 16 examples, tokens those of an example.
2. The answers of XQuAD's questions in all its languages from random logits: what is left of an evaluation without the
   model.
"""

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from multitune.data import squad
from multitune.data.sets import assistant
from multitune.models import offline
from multitune.models.tokenizers import load_tokenizer
from multitune.recipe import Recipe
from multitune.tasks import QuestionAnswering
from multitune.training.loading import load_corpus, load_plan
from multitune.training.memory import peak_memory, reset_peak_memory
from multitune.training.run import prepare

SENTENCES = (2_000, 20_000)
MIB = 2**20


class Cost(NamedTuple):
    """Seconds until the records are there, and from there until a run is ready; processor seconds of both; bytes of
    memory at most; microseconds of a batch of 16 examples; tokens of an example."""

    read: float
    ready: float
    processor: float
    peak: int
    batch: float
    tokens: float


def write_tables(folder: Path, languages: int, sentences: int) -> None:
    """A file for each of so many made-up languages; they take turns in the words of real ones."""
    sources = list(assistant.load(unseen=()).train.values())
    for number in range(languages):
        draw, source = random.Random(number), sources[number % len(sources)]
        with (folder / f"l{number:03}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(sentences):
                drawn = draw.choices(source, k=draw.randint(1, 3))
                record = {"text": " ".join(one["text"] for one in drawn), "label": str(draw.randrange(10))}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def prepared(folder: Path, model: Path, cache: Path) -> Cost:
    """The cost of preparing a run on the tables of a folder, in a process that has this cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    reset_peak_memory(torch.device("cpu"))
    recipe = Recipe(data="folder", path=str(folder), model=str(model), layers=1, method="mtl")
    began, busy = time.monotonic(), time.process_time()
    corpus = load_corpus(recipe)
    read = time.monotonic()
    run = prepare(recipe, corpus, load_plan(recipe))
    ready, busy = time.monotonic(), time.process_time() - busy
    for language in run.languages:
        for row in run.batches[language].next()[language]:
            run.examples[language][row]
    batch = (time.monotonic() - ready) / len(run.languages)
    tokens = np.mean([run.heads.task(language).sizes(rows).mean() for language, rows in run.examples.items()])
    return Cost(read - began, ready - read, busy, peak_memory(torch.device("cpu")), 1e6 * batch, float(tokens))


def tables(languages: int) -> Table:
    """One line a size and state of the cache."""
    found = Table("sentences", "cache", "read, s", "ready, s", "sum, s", "CPU, s", "MiB", "us", "tokens")
    spawn = multiprocessing.get_context("spawn")
    for sentences in SENTENCES:
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder) / "tables"
            files.mkdir()
            write_tables(files, languages, sentences)
            for state in ("empty", "full"):
                with spawn.Pool(1) as pool:
                    cost = pool.apply(prepared, (files, offline.directory(), Path(folder) / "cache"))
                seconds = (f"{s:.1f}" for s in (cost.read, cost.ready, cost.read + cost.ready, cost.processor))
                more = (f"{cost.peak / MIB:.0f}", f"{cost.batch:.0f}", f"{cost.tokens:.1f}")
                found.add_row(str(sentences), state, *seconds, *more)
    found.title = f"{languages} languages, sentences of each"
    return found


def answers(folder: Path) -> str:
    """Seconds that XQuAD's questions take without a model."""
    task, tokenizer = QuestionAnswering(()), load_tokenizer("offline:e5-small")
    generator = torch.Generator().manual_seed(0)
    tokenising, finding, questions = 0.0, 0.0, 0
    files = sorted(folder.glob("xquad.*.json"))
    for file in files:
        records = list(squad.read(file))
        began = time.monotonic()
        examples = list(task.encode(records, tokenizer, 384))
        tokenising += time.monotonic() - began
        found = []
        for first in range(0, len(examples), 16):
            some = examples[first : first + 16]
            length = max(len(example["input_ids"]) for example in some)
            starts, ends = torch.randn(2, len(some), length, generator=generator)
            output = QuestionAnsweringModelOutput(start_logits=starts, end_logits=ends)
            began = time.monotonic()
            found += task.decode(output, some)
            finding += time.monotonic() - began
        began = time.monotonic()
        task.score(records, task.join(records, examples, found, tokenizer))
        finding += time.monotonic() - began
        questions += len(records)
    return (
        f"XQuAD, {len(files)} languages, {questions} questions: tokenised in {tokenising:.1f} s, "
        f"answers found and scored in {finding:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, default=100)
    parser.add_argument("--path", default=os.path.join(os.environ.get("MULTITUNE_DATA", "../shared/data"), "xquad"))
    options = parser.parse_args()
    Console().print(tables(options.languages))
    path = Path(options.path)
    print(answers(path) if path.is_dir() else f"{path} is not there: no answers are timed")


if __name__ == "__main__":
    main()

"""A training step on PAN-X German: multitune's loop beside the Hugging Face Trainer, in one run.

Same encoder (offline:e5-small, 12 layers), same sentences, batch size 16, same precision, AdamW, dropout as the model
has it. The Trainer is used as its documentation shows it: DataCollatorForTokenClassification, random batches.

Means, not medians: batches of sentences of like length take very different times, and an epoch takes their sum.

The last line says what a step of ours cannot do without: matrix products, and AdamW with the gradients' norm. The
Trainer's time through theirs is the ratio that a loop would have in which all else took no time.

    python bench/trainer.py --path data/panx

With --compile, our step is compared with itself under ``compile: true`` instead, by the process's CPU time, and it is
told what compiling and collating take of it:

    OMP_NUM_THREADS=1 python bench/trainer.py --path data/panx --compile
"""

import argparse
import os
import statistics
import tempfile
import time
from itertools import pairwise
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from multitune.data.corpus import Corpus
from multitune.models import offline
from multitune.models.precision import has_bf16
from multitune.recipe import Recipe
from multitune.tasks import Tagging
from multitune.training.loading import load_corpus, load_plan
from multitune.training.run import Run, prepare

SENTENCES = 4000
WARM_UP = 3
NEEDED = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "AdamW and norm": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
}


class Ends(TrainerCallback):
    """When each of the Trainer's steps ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def trainer_steps(examples: list[dict[str, Any]], labels: int, steps: int, bf16: bool, folder: str) -> list[float]:
    """Seconds of steps of the Hugging Face Trainer, from the end of one to the end of the next."""
    tokenizer = AutoTokenizer.from_pretrained(offline.directory())
    model = AutoModelForTokenClassification.from_pretrained(offline.directory(), num_labels=labels, dtype=torch.float32)
    ends = Ends()
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=16,
        max_steps=WARM_UP + steps,
        learning_rate=1e-4,
        bf16=bf16,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    rows = [{"input_ids": example["input_ids"], "labels": example["labels"]} for example in examples]
    Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        callbacks=[ends],
    ).train()
    return [end - before for before, end in pairwise(ends.times)][WARM_UP - 1 :]


def our_steps(run: Run, steps: int) -> list[float]:
    """Seconds of steps of our loop."""
    seconds = []
    for _ in range(WARM_UP + steps):
        began = time.perf_counter()
        drawn = run.update.draw(1)
        run.update.step(drawn, (run.loss(number) for number in drawn))
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


def needed(run: Run, steps: int) -> dict[str, float]:
    """Seconds a step of ours that go into each of ``NEEDED``, as torch's profiler sees them."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        our_steps(run, steps)
    seconds = {event.key: event.self_cpu_time_total / 1e6 / (WARM_UP + steps) for event in profiled.key_averages()}
    return {name: sum(seconds[kernel] for kernel in kernels) for name, kernels in NEEDED.items()}


def cpu_seconds() -> float:
    """What this process and those that it has started and ended, compilers, have computed."""
    return sum(os.times()[:4])


def collating(run: Run, batches: int) -> float:
    """CPU seconds a batch, of all that is done with it on the host before the model has it."""
    (language,) = run.languages
    stream, examples, task = run.batches[language], run.examples[language], run.heads.task(language)
    began = time.process_time()
    for _ in range(batches):
        inputs, _ = task.collate([examples[row] for row in stream.next()[language]], run.encoder.pad_id)
        run.encoder.on_device(run.encoder.training_inputs(inputs))
    return (time.process_time() - began) / batches


def compare_compiled(recipe: Recipe, corpus: Corpus, steps: int, rounds: int) -> None:
    """Print CPU seconds of our steps as they are and compiled, on the same batches, in turns."""
    runs, spent = {}, dict[bool, list[float]]({False: [], True: []})
    for compiled in spent:
        began = cpu_seconds()
        runs[compiled] = prepare(recipe.model_copy(update={"compile": compiled}), corpus, load_plan(recipe))
        print(f"compile: {compiled}: ready for the first step after {cpu_seconds() - began:.0f} CPU seconds")
        our_steps(runs[compiled], 0)
    for _ in range(rounds):
        for compiled, run in runs.items():
            began = cpu_seconds()
            for _ in range(steps):
                drawn = run.update.draw(1)
                run.update.step(drawn, (run.loss(number) for number in drawn))
            spent[compiled].append((cpu_seconds() - began) / steps)
    plain, swift = (statistics.mean(spent[compiled]) for compiled in spent)
    ratios = [own / other for own, other in zip(spent[True], spent[False], strict=True)]
    print(
        f"{runs[False].precision}, dropout {recipe.dropout}: {1000 * plain:.0f} ms of CPU a step, compiled "
        f"{1000 * swift:.0f}, ratio {swift / plain:.2f} ({min(ratios):.2f} to {max(ratios):.2f}; {rounds} pairs of "
        f"{steps} steps, {torch.get_num_threads()} threads)"
    )
    spare = collating(runs[False], 10 * steps)
    print(f"collating takes {1000 * spare:.2f} ms, {100 * spare / plain:.2f} % of a step")


def compare_trainers(recipe: Recipe, corpus: Corpus, steps: int, rounds: int) -> None:
    """Print what a step takes here and in the Trainer, in each precision that this processor computes."""
    task = Tagging(corpus.labels)
    tokenizer = AutoTokenizer.from_pretrained(offline.directory())
    examples = list(task.encode(corpus.train["de"], tokenizer, recipe.max_length))
    for bf16 in [False, True] if has_bf16(torch.device("cpu")) else [False]:
        run = prepare(recipe.model_copy(update={"precision": "bf16" if bf16 else "fp32"}), corpus, load_plan(recipe))
        ours, theirs, parts = [], [], []
        for _ in range(rounds):
            ours += our_steps(run, steps)
            parts.append(needed(run, steps))
            with tempfile.TemporaryDirectory() as folder:
                theirs += trainer_steps(examples, len(task.labels), steps, bf16, folder)
        own, peer = statistics.mean(ours), statistics.mean(theirs)
        print(
            f"{'bf16' if bf16 else 'fp32'}: multitune {1000 * own:.0f} ms a step, "
            f"Hugging Face Trainer {1000 * peer:.0f} ms, ratio {peer / own:.2f} "
            f"({len(ours)} steps each, {torch.get_num_threads()} threads, means)"
        )
        floor = {name: statistics.mean(part[name] for part in parts) for name in NEEDED}
        said = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in floor.items())
        print(f"      {said}; if all else took no time, ratio {peer / sum(floor.values()):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--path",
        default=os.path.join(os.environ.get("MULTITUNE_DATA", "../shared/data"), "panx"),
        help="folder with train-de.tsv and dev-de.tsv",
    )
    parser.add_argument("--steps", type=int, default=25, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--compile", action="store_true", help="compare with compiled layers, not with the Trainer")
    parser.add_argument("--layers", type=int, help="of the encoder, with --compile; all by default")
    parser.add_argument("--dropout", type=float, help="with --compile; by default the model's own")
    options = parser.parse_args()
    recipe = Recipe(
        data="panx",
        path=options.path,
        languages=("de",),
        unseen=(),
        train_limit=SENTENCES,
        test_limit=1,
        method="sequential",
        learning_rate=1e-4,
    )
    corpus = load_corpus(recipe)
    if options.compile:
        changed = recipe.model_copy(update={"layers": options.layers, "dropout": options.dropout})
        compare_compiled(changed, corpus, options.steps, options.rounds)
    else:
        compare_trainers(recipe, corpus, options.steps, options.rounds)


if __name__ == "__main__":
    main()

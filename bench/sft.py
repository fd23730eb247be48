"""Supervised fine-tuning of SmolLM2 on the assistant's calls: multitune's step beside TRL's SFTTrainer, in one run.

Same token ids and labels (the assistant's tokens alone), batch size, precision, adapters, AdamW and clipping. Each side
is a process of its own that waits for its turn; rounds of the sides alternate, so that what else the machine does slows
both. First every setting takes a few steps: TRL with batches padded and grouped by length, or laid end to end
(padding_free), under LoRA also with the whole model in bf16; multitune packed, padded, and with Sequential Reptile,
whose slow weights are a copy more of what trains. Then TRL's best setting, by the processor's time, and the packed
step of multitune take turns for an epoch.

Told: supervised tokens a second by the clock, and by the time that the process had the processor; the peak of its
memory, packages and model included.

    OMP_NUM_THREADS=1 python bench/sft.py [--only lora] [--precision bf16] [--records 16] [--rounds 4]
"""

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pt", "sv")
BATCH, RANK, ALPHA, RATE, LENGTH = 8, 8, 32, 1e-4, 128
WARM_UP, TRIAL = 1, 3
"""Steps before a process is ready, and of a trial."""
MULTITUNE, TRL = "multitune", "TRL"
OURS: dict[str, dict[str, Any]] = {
    MULTITUNE: {"method": "mixed", "sampling": "epochs", "packing": True},
    "multitune, padded": {"method": "mixed", "sampling": "epochs"},
    "multitune, sequential_reptile": {"method": "sequential_reptile", "packing": True},
}
THEIRS: dict[str, dict[str, Any]] = {
    "TRL, grouped by length": {"train_sampling_strategy": "group_by_length"},
    "TRL, padding-free": {"padding_free": True},
    "TRL, padding-free, model in bf16": {"padding_free": True, "model_in_bf16": True},
}


@dataclass
class Side:
    """A process that trains, and what it has told."""

    name: str
    given: list[str]
    tokens: list[int] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peak: int = 0

    def __post_init__(self) -> None:
        command = [sys.executable, __file__, "--side", self.name, *self.given]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._told()

    def round(self, steps: int) -> None:
        """Let it take so many steps while no other side does."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        told = self._told()
        self.tokens.append(told["tokens"])
        self.clock.append(told["clock"])
        self.processor.append(told["processor"])
        self.peak = told["peak"]

    def end(self) -> None:
        self._process.communicate()

    def rates(self, seconds: list[float]) -> list[float]:
        return [count / own for count, own in zip(self.tokens, seconds, strict=True)]

    def rate(self) -> float:
        """Supervised tokens a second of the processor, of all rounds."""
        return sum(self.tokens) / sum(self.processor)

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has ended")
        told: dict[str, Any] = json.loads(line)
        return told


class Rounds:
    """In a side's process: waits for its turn, and measures the steps of a round."""

    def __init__(self) -> None:
        self._left, self._tokens = WARM_UP, 0
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what packages print is no part of the talk
        self._began = (time.perf_counter(), time.process_time())

    def count(self, tokens: int) -> bool:
        """A step was taken, with so many supervised tokens; whether another is to be."""
        self._left, self._tokens = self._left - 1, self._tokens + tokens
        if self._left:
            return True
        clock, processor = (now - then for now, then in zip(self._now(), self._began, strict=True))
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told = {"tokens": self._tokens, "clock": clock, "processor": processor, "peak": peak}
        print(json.dumps(told), file=self._out, flush=True)
        steps = sys.stdin.readline()
        self._left, self._tokens, self._began = int(steps or 0), 0, self._now()
        return bool(self._left)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def recipe(given: argparse.Namespace, **keys: Any) -> Any:
    from multitune.recipe import Recipe

    own: dict[str, Any] = {"lora": {"rank": RANK, "alpha": ALPHA, "dropout": 0.0}} if given.only == "lora" else {}
    data: dict[str, Any] = {
        "model": "offline:smollm2",
        "data": "assistant",
        "task": "causal_lm",
        "languages": LANGUAGES,
        "unseen": (),
    }
    limits: dict[str, Any] = {"train_limit": given.records, "dev_limit": 1, "test_limit": 1, "max_length": LENGTH}
    training: dict[str, Any] = {"batch_size": BATCH, "learning_rate": RATE, "schedule": "constant", "warmup": 0.0}
    return Recipe(**data, **limits, **training, **own, precision=given.precision, **keys)


def ours(given: argparse.Namespace, rounds: Rounds, keys: dict[str, Any]) -> None:
    """Steps of multitune's loop."""
    from multitune.training.loading import load_corpus, load_plan
    from multitune.training.run import prepare

    one = recipe(given, **keys)
    run = prepare(one, load_corpus(one), load_plan(one))
    for count in _of_ours(run):
        if not rounds.count(count):
            return


def _of_ours(run: Any) -> Iterator[int]:
    learnt = {
        language: [int(sum(label >= 0 for label in example["labels"])) for example in examples]
        for language, examples in run.examples.items()
    }
    while True:
        drawn, taken = run.update.draw(1), list[dict[str, Any]]()
        run.update.step(drawn, (run.next_loss(number, taken) for number in drawn))
        yield sum(learnt[language][row] for batch in taken for language, at in batch.items() for row in at["rows"])


def _rows(given: argparse.Namespace, tokenizer: Any) -> list[dict[str, Any]]:
    """The token ids and labels that multitune trains on."""
    from multitune.tasks import CausalLM
    from multitune.training.loading import load_corpus

    task, corpus = CausalLM(()), load_corpus(recipe(given))
    rows = [row for records in corpus.train.values() for row in task.encode(records, tokenizer, LENGTH)]
    return [{name: row[name] for name in ("input_ids", "labels")} for row in rows]


def theirs(given: argparse.Namespace, rounds: Rounds, keys: dict[str, Any]) -> None:
    """Steps of TRL's loop."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from multitune.models.gguf_models import SMOLLM2

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2.directory())
    settings = {key: value for key, value in keys.items() if key != "model_in_bf16"}
    dtype = torch.bfloat16 if "model_in_bf16" in keys else torch.float32

    class Counting(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            self.learnt = int((inputs["labels"][:, 1:] != -100).sum())
            return super().compute_loss(model, inputs, *args, **options)

    class Turns(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = not rounds.count(trainer.learnt)

    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            folder,
            max_steps=10_000,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_length=None,
            use_cpu=True,
            bf16=given.precision == "bf16",
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **settings,
        )
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear")
        trainer = Counting(
            AutoModelForCausalLM.from_pretrained(SMOLLM2.directory(), dtype=dtype),
            arguments,
            train_dataset=Dataset.from_list(_rows(given, tokenizer)),
            processing_class=tokenizer,
            peft_config=lora if given.only == "lora" else None,
            callbacks=[Turns()],
        )
        trainer.train()


def tried(name: str, given: list[str]) -> Side:
    """A few steps of one setting, alone on the stage."""
    side = Side(name, given)
    side.round(TRIAL)
    side.end()
    print(f"  {name}: {side.rate():.0f} tokens a second of processor, {side.peak / 1e6:.0f} MB", flush=True)
    return side


def compared(kind: str, options: argparse.Namespace) -> None:
    given = ["--only", kind, "--precision", options.precision, "--records", str(options.records)]
    print(f"{kind}, {options.precision}, batches of {BATCH}:", flush=True)
    in_fp32 = kind == "full" or options.precision == "fp32"
    names = [name for name, keys in THEIRS.items() if not (in_fp32 and "model_in_bf16" in keys)]
    trials = [] if options.beside else [tried(name, given) for name in (*names, *OURS)]
    of_trl = [side for side in trials if side.name in THEIRS]
    best = options.beside or max(of_trl, key=Side.rate).name
    sides = [Side(MULTITUNE, given), Side(best, given)]
    steps = -(-options.records * len(LANGUAGES) // BATCH // options.rounds)
    for number in range(options.rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            side.round(steps)
    for side in sides:
        side.end()
    own, peer = sides
    for what, of in (("by the clock", "clock"), ("of processor", "processor")):
        mine, other = (side.rates(getattr(side, of)) for side in sides)
        ratios = [one / another for one, another in zip(mine, other, strict=True)]
        print(
            f"  tokens a second {what}: multitune {statistics.median(mine):.0f} (best {max(mine):.0f}), {best} "
            f"{statistics.median(other):.0f} (best {max(other):.0f}); ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )
    least = min(side.peak for side in (*of_trl, peer))
    print(
        f"  peak of memory: multitune {own.peak / 1e6:.0f} MB, {best} {peer.peak / 1e6:.0f} MB; ratio "
        f"{own.peak / peer.peak:.2f}, to TRL's least of all settings {own.peak / least:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["lora", "full"])
    parser.add_argument("--precision", choices=["fp32", "bf16"])
    parser.add_argument("--records", type=int, default=16, help="of each of eight languages")
    parser.add_argument("--rounds", type=int, default=4, help="into which an epoch is divided")
    parser.add_argument("--beside", choices=THEIRS, help="this setting of TRL's, without trying others")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1"}  # TRL counts its users elsewhere
    if options.side is not None:
        logging.disable(logging.WARNING)
        rounds = Rounds()
        if options.side in OURS:
            ours(options, rounds, OURS[options.side])
        else:
            theirs(options, rounds, THEIRS[options.side])
        return
    import torch

    from multitune.models.precision import has_bf16

    options.precision = options.precision or ("bf16" if has_bf16(torch.device("cpu")) else "fp32")
    for kind in [options.only] if options.only else ["lora", "full"]:
        compared(kind, options)


if __name__ == "__main__":
    main()

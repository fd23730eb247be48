"""Supervised tokens a second and peak memory on the assistant's calls: multitune's loop beside TRL's SFTTrainer.

The same model (offline:smollm2), the same records in batches of eight, the same precision, AdamW; full and LoRA (rank 8
on all linear layers). Each measurement is a process of its own, so that its peak memory is. TRL's trainer has what
makes it fastest here: batches of like length, right padding, no logging or saving, the template marked so that the loss
is on the assistant's tokens, as ours. Two rounds take minutes on two idle cores.

    python bench/sft.py --steps 10
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from typing import Any

from multitune.data.corpus import Record
from multitune.recipe import Lora, Recipe

LANGUAGES = ("de", "en", "es", "fr")
BATCH, WARM_UP = 8, 2
RATE = 1e-3
OURS, THEIRS = "multitune", "SFTTrainer"
MARKED = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's template, the assistant's turns marked."""


def recipe(lora: bool, steps: int) -> Recipe:
    return Recipe(
        model="offline:smollm2",
        data="assistant",
        task="causal_lm",
        languages=LANGUAGES,
        unseen=(),
        method="mixed",
        batch_size=BATCH,
        budget=WARM_UP + steps,
        learning_rate=RATE,
        lora=Lora(rank=8, alpha=16, dropout=0.0) if lora else None,
        train_limit=200,
        dev_limit=1,
        test_limit=1,
    )


def ours(lora: bool, steps: int) -> tuple[int, float]:
    """Supervised tokens of the timed steps, and their seconds."""
    from multitune.training.loading import load_corpus, load_plan
    from multitune.training.run import prepare

    one = recipe(lora, steps)
    run = prepare(one, load_corpus(one), load_plan(one))
    tokens, began = 0, 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            began = time.perf_counter()
        taken: list[Any] = []
        run.update.advance(RATE, step / (WARM_UP + steps))
        drawn = run.update.draw(1)
        run.update.step(drawn, [run.next_loss(number, taken) for number in drawn])
        if step >= WARM_UP:
            for language, batch in (pair for each in taken for pair in each.items()):
                rows = (run.examples[language][row] for row in batch["rows"])
                tokens += sum(label >= 0 for example in rows for label in example["labels"])
    return tokens, time.perf_counter() - began


def theirs(lora: bool, steps: int) -> tuple[int, float]:
    """The same of SFTTrainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from multitune.models import smollm2
    from multitune.models.precision import has_bf16
    from multitune.training.loading import load_corpus

    records: list[Record] = [row for rows in load_corpus(recipe(lora, steps)).train.values() for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(smollm2.directory())
    tokenizer.chat_template = MARKED
    ends: list[float] = []
    tokens: list[int] = []

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class Counting(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **keys: Any) -> Any:
            tokens.append(int((inputs["labels"] >= 0).sum()))
            return super().compute_loss(model, inputs, *rest, **keys)

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder,
            per_device_train_batch_size=BATCH,
            max_steps=WARM_UP + steps,
            learning_rate=RATE,
            max_length=128,
            assistant_only_loss=True,
            train_sampling_strategy="group_by_length",
            bf16=has_bf16(torch.device("cpu")),
            use_cpu=True,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Counting(
            model=AutoModelForCausalLM.from_pretrained(smollm2.directory(), dtype=torch.float32),
            args=settings,
            train_dataset=Dataset.from_list(records),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear") if lora else None,
            callbacks=[Ends()],
        ).train()
    seconds = [after - before for before, after in pairwise(ends)]
    return sum(tokens[WARM_UP:]), sum(seconds[WARM_UP - 1 :])


def measured(who: str, lora: bool, steps: int) -> dict[str, float]:
    """Tokens a second, and the peak memory in GiB, of a process of its own."""
    command = [sys.executable, __file__, "--steps", str(steps), "--only", who, *(["--lora"] if lora else [])]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    found: dict[str, float] = json.loads(said)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=2, help="each way in turn; the fastest round counts")
    parser.add_argument("--only", choices=[OURS, THEIRS], help="measure one way in this process, and print JSON")
    parser.add_argument("--lora", action="store_true", help="of --only: adapters in place of all weights")
    given = parser.parse_args()
    if given.only:
        tokens, seconds = (ours if given.only == OURS else theirs)(given.lora, given.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"speed": tokens / seconds, "peak": peak}))
        return
    for lora in (False, True):
        rounds = [{who: measured(who, lora, given.steps) for who in (OURS, THEIRS)} for _ in range(given.rounds)]
        speed = {who: max(one[who]["speed"] for one in rounds) for who in (OURS, THEIRS)}
        peak = {who: min(one[who]["peak"] for one in rounds) for who in (OURS, THEIRS)}
        print(
            f"{'LoRA' if lora else 'full'}: multitune {speed[OURS]:.1f} supervised tokens a second, "
            f"SFTTrainer {speed[THEIRS]:.1f}, ratio {speed[OURS] / speed[THEIRS]:.2f}; "
            f"peak {peak[OURS]:.2f} and {peak[THEIRS]:.2f} GiB, ratio {peak[OURS] / peak[THEIRS]:.2f}"
        )


if __name__ == "__main__":
    main()

"""The methods behind TRL's SFTTrainer, with and without a LoRA of PEFT's."""

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback
from trl import SFTConfig, SFTTrainer

from multitune.errors import UserError
from multitune.hf import MultitaskMixin
from tiny import SETTINGS, same
from tiny_llama import llama, texts, tokenizer

pytestmark = [
    pytest.mark.check,
    # TRL and PEFT read names that transformers has renamed.
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning"),
]
OPEN: dict[str, Any] = {"inner_steps": 6, "outer_lr": 0.5}


class MultitaskSFTTrainer(MultitaskMixin, SFTTrainer):  # type: ignore[misc]
    """As the docs write it."""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # TRL counts its users elsewhere
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def sft(folder: Path, lora: bool, method: str = "sequential_reptile", **settings: Any) -> MultitaskSFTTrainer:
    given = SETTINGS | {"per_device_train_batch_size": 2, "bf16": False}
    options = {"options": settings.pop("options", OPEN if method == "sequential_reptile" else None)}
    adapters = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.1, task_type="CAUSAL_LM")
    held_out = texts(1)
    return MultitaskSFTTrainer(
        llama(),
        SFTConfig(str(folder), **(given | settings)),
        train_dataset=texts(),
        eval_dataset={name: held_out.select(range(first, 12, 2)) for first, name in enumerate(("de", "sw"))},
        processing_class=tokenizer(),
        peft_config=adapters if lora else None,
        task_column="language",
        method=method,
        **options,
    )


def trained(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def saved(folder: Path, lora: bool) -> dict[str, Tensor]:
    model: PreTrainedModel | PeftModel = type(llama()).from_pretrained(folder) if not lora else llama()
    return trained(PeftModel.from_pretrained(llama(), str(folder), is_trainable=True) if lora else model)


class Slow(TrainerCallback):
    def __init__(self, watched: MultitaskSFTTrainer) -> None:
        self._watched, self.kept = watched, dict[int, dict[str, Tensor]]()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        assert self._watched.two_loop is not None
        with self._watched.two_loop.slow_weights():
            self.kept[state.global_step] = trained(given["model"])


@pytest.mark.parametrize("lora", [False, True])
def test_slow_weights_are_saved_and_selected(tmp_path: Path, lora: bool) -> None:
    one = sft(
        tmp_path,
        lora,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    slow = Slow(one)
    one.add_callback(slow)
    one.train()
    for step in (4, 8, 12):
        assert same(saved(tmp_path / f"checkpoint-{step}", lora), slow.kept[step])
    best = Path(str(one.state.best_model_checkpoint))
    assert same(trained(one.model), saved(best, lora))
    assert one.evaluate()["eval_loss"] == pytest.approx(one.state.best_metric)


def test_slow_weights_are_of_adapters_alone(tmp_path: Path) -> None:
    one = sft(tmp_path, lora=True)
    one.train()
    assert one.two_loop is not None
    slow = sum(own["slow"].numel() for own in one.two_loop.state.values())
    assert slow == sum(p.numel() for p in trained(one.model).values()) == 2 * 2 * (16 + 16)


@pytest.mark.parametrize(("method", "accumulation"), [("sequential_reptile", 1), ("gradvac", 2)])
@pytest.mark.parametrize("lora", [False, True])
def test_it_resumes_to_the_same_bits(tmp_path: Path, method: str, accumulation: int, lora: bool) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 8, "gradient_accumulation_steps": accumulation}
    whole = sft(tmp_path / "whole", lora, method, **settings)
    whole.train()
    resumed = sft(tmp_path / "resumed", lora, method, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert same(trained(whole.model), trained(resumed.model))


def test_with_eta_1_the_steps_are_its_own(tmp_path: Path) -> None:
    one = sft(tmp_path, lora=True, options={"inner_steps": 4, "outer_lr": 1.0})
    one.train()
    two = sft(tmp_path, lora=True, method="sequential")
    two.train()
    assert same(trained(one.model), trained(two.model))


def test_packing_loses_the_languages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'language'; it has .* \(TRL's packing=True drops all others\)"):
        sft(tmp_path, lora=False, packing=True, packing_strategy="wrapped", max_length=8).train()

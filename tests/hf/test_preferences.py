"""The methods behind TRL's trainers that take something else before the settings: DPO, GRPO, KTO."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer

from multitune.errors import UserError
from multitune.hf import MultitaskMixin
from test_sft import quiet, trained
from tiny import SETTINGS, same
from tiny_llama import llama, texts, tokenizer

pytestmark = [
    pytest.mark.check,
    # TRL and PEFT read names that transformers has renamed.
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning"),
]
__all__ = ["quiet"]


class MultitaskDPOTrainer(MultitaskMixin, DPOTrainer):  # type: ignore[misc]
    """As the docs write it."""


class MultitaskGRPOTrainer(MultitaskMixin, GRPOTrainer):  # type: ignore[misc]
    """As the docs write it."""


class MultitaskKTOTrainer(MultitaskMixin, KTOTrainer):  # type: ignore[misc]
    """As the docs write it."""


OWN = SETTINGS | {"max_steps": 4, "per_device_train_batch_size": 2, "bf16": False}


def preferences() -> Dataset:
    """The first word is preferred to the last one."""
    words = [row["text"].split() for row in texts()]
    rows = {"prompt": [" ".join(own) for own in words], "chosen": [own[0] for own in words]}
    return Dataset.from_dict(rows | {"rejected": [own[-1] for own in words], "language": texts()["language"]})


def chatting() -> PreTrainedTokenizerFast:
    made = tokenizer()
    made.chat_template = "{% for turn in messages %}{{ turn.content }} {% endfor %}"
    return made


def dpo(folder: Path, method: str, **settings: Any) -> MultitaskDPOTrainer:
    data = preferences()
    return MultitaskDPOTrainer(
        llama(),
        args=DPOConfig(str(folder), **(OWN | settings)),
        train_dataset=data,
        eval_dataset={"de": data.select([0, 2]), "sw": data.select([1, 3])},
        processing_class=chatting(),
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        task_column="language",
        method=method,
    )


@pytest.mark.parametrize(("method", "accumulation"), [("sequential_reptile", 1), ("gradvac", 2)])
def test_preferences_train_with_the_settings_that_were_given(tmp_path: Path, method: str, accumulation: int) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": accumulation}
    whole = dpo(tmp_path, method, **settings)
    assert whole.args.output_dir == str(tmp_path)
    whole.train()
    assert whole.state.global_step == 4
    assert (whole.two_loop is None) == (method == "gradvac")
    resumed = dpo(tmp_path, method, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same(trained(whole.model), trained(resumed.model))
    scores = whole.evaluate(metric_key_prefix="test")
    each = [scores[f"test_{name}_rewards/margins"] for name in ("de", "sw")]
    assert scores["test_rewards/margins"] == pytest.approx(sum(each) / 2)
    assert not any(name.startswith("eval_") for name in scores)


def grpo(folder: Path, **own: Any) -> MultitaskGRPOTrainer:
    return MultitaskGRPOTrainer(
        llama(),
        lambda completions, **_: [float(len(said)) for said in completions],
        GRPOConfig(str(folder), num_generations=2, max_completion_length=4, **OWN),
        train_dataset=preferences().select_columns(["prompt", "language"]),
        processing_class=chatting(),
        **own,
    )


def test_rewards_train_with_slow_weights(tmp_path: Path) -> None:
    one = grpo(tmp_path, method="lookahead")
    one.train()
    assert one.two_loop is not None
    assert (one.state.global_step, one.two_loop.inner_step) == (4, 0)
    with pytest.raises(UserError, match=r"has its own order of examples \(RepeatSampler\)"):
        grpo(tmp_path, task_column="language").train()


def kto(folder: Path, settings: dict[str, Any], **own: Any) -> MultitaskKTOTrainer:
    data = preferences()
    rows = {"prompt": data["prompt"], "completion": data["chosen"], "language": data["language"]}
    return MultitaskKTOTrainer(
        llama(),
        llama(),
        KTOConfig(str(folder), **(OWN | settings)),
        train_dataset=Dataset.from_dict(rows | {"label": [number % 4 < 2 for number in range(len(data))]}),
        processing_class=chatting(),
        **own,
    )


def test_judgements_train_in_their_own_order_or_without_a_loss_that_needs_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train_sampling_strategy: sequential orders the examples"):
        kto(tmp_path, {}, task_column="language")
    assert kto(tmp_path, {}, method="lookahead").train().global_step == 4
    any_order = {"loss_type": "apo_zero_unpaired", "train_sampling_strategy": "random"}
    assert kto(tmp_path, any_order, task_column="language").train().global_step == 4

"""Two ranks between which accelerate divides the weights (FSDP2) are one process with twice the batches.

accelerate divides weights on cards alone: here it is steered onto that path with two processes on CPUs.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.optim import SGD

from multitune.errors import UserError
from multitune.hf import MultitaskTrainer
from multitune.methods.sharded import is_sharded, whole
from test_ranks import free_port
from test_step_rows import causal
from tiny import trainer

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
BERT: dict[str, Any] = {"transformer_layer_cls_to_wrap": ["BertLayer"]}
"""Of itself accelerate takes BERT's embeddings, and then the words within them, which torch refuses."""
RANKS = 2
TWO_LOOP: dict[str, Any] = {"inner_steps": 4, "outer_lr": 0.5}


@dataclass
class Case:
    """A method, and how it is trained.

    Attributes:
        method: its name.
        options: its options.
        accumulation: micro-batches of a step.
        settings: of the Trainer.
        config: of FSDP.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    accumulation: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def trainer(self, folder: Path, ranks: int = 1, **more: Any) -> MultitaskTrainer:
        """On rows of one label; BERT takes no notice of their number, by which the Trainer would make up for ranks."""
        given: dict[str, Any] = {
            "average_tokens_across_devices": False,
            "eval_steps": 3,
            "eval_strategy": "steps",
            "gradient_accumulation_steps": self.accumulation,
            "max_grad_norm": 0.5,
            "per_device_eval_batch_size": 6 // ranks,
            "per_device_train_batch_size": 8 // ranks,
        }
        # Steps as of AdamW would magnify the rounding that the order of a sum leaves.
        inner = {"optimizer_cls_and_kwargs": (SGD, {"lr": 0.1, "momentum": 0.5})}
        return trainer(folder, self.method, self.options, own=inner, **(given | self.settings | more))

    def divided(self, folder: Path, **more: Any) -> MultitaskTrainer:
        """The trainer of one of two ranks."""
        saves = {"save_strategy": "steps", "save_steps": 10, "fsdp": True, "fsdp_config": BERT | self.config}
        return self.trainer(folder, RANKS, **(saves | self.settings | more))


CASES = {
    "sequential_reptile": Case("sequential_reptile", TWO_LOOP, 2),
    "nesterov": Case("sequential_reptile", TWO_LOOP | {"outer_optimizer": "nesterov"}),
    "the best": Case(
        "sequential_reptile",
        TWO_LOOP,
        settings={"save_steps": 3, "load_best_model_at_end": True, "metric_for_best_model": "loss", "max_steps": 9},
    ),
    "in shards": Case("lookahead", TWO_LOOP, config={"state_dict_type": "SHARDED_STATE_DICT"}),
    "gathered once": Case("fish", TWO_LOOP, config={"reshard_after_forward": False}),
    "loaded by rank 0": Case(
        "reptile", {"inner_steps": 2, "outer_lr": 0.5}, config={"cpu_ram_efficient_loading": True}
    ),
    "gradvac": Case("gradvac", {"groups": "all_layer"}, 3),
    "famo": Case("famo", {}, 3),
    "torchjd:UPGrad": Case("torchjd:UPGrad", {}, 3),
}


def of_texts(folder: Path, ranks: int = 1, **more: Any) -> MultitaskTrainer:
    """On texts of different lengths, whose tokens the loss is a mean over; accelerate itself finds Llama's layers."""
    given: dict[str, Any] = {"learning_rate": 0.1, "max_steps": 14, "per_device_train_batch_size": 4 // ranks}
    return causal(folder, "gradvac", **given, **more)


def steer_onto_fsdp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let accelerate divide weights over processes on CPUs, whose gloo knows sums alone."""
    from accelerate import accelerator, state
    from accelerate.utils import DistributedType
    from torch.distributed.fsdp import FSDPModule

    begin, prepare = state.AcceleratorState.__init__, accelerator.fsdp2_prepare_model

    def begun(self: Any, *given: Any, fsdp_plugin: Any = None, **more: Any) -> None:
        begin(self, *given, fsdp_plugin=fsdp_plugin, **more)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    def prepared(*given: Any) -> nn.Module:
        model: nn.Module = prepare(*given)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        return model

    monkeypatch.setattr(state.AcceleratorState, "__init__", begun)
    monkeypatch.setattr(accelerator, "fsdp2_prepare_model", prepared)


def whole_weights(model: nn.Module | None) -> dict[str, Tensor]:
    assert model is not None
    return {name: whole(weight.detach()).clone() for name, weight in model.named_parameters()}


def losses(one: MultitaskTrainer) -> list[float]:
    """Of all evaluations."""
    return [entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]


def rank(folder: Path, number: int) -> None:
    """What one of two processes does: it trains, and once more from a checkpoint within an epoch and an inner loop."""
    with pytest.MonkeyPatch.context() as patched:
        steer_onto_fsdp(patched)
        for name, case in CASES.items():
            one = case.divided(folder / name)
            one.train()
            assert all(map(is_sharded, one.model.parameters()))  # type: ignore[union-attr]
            one.save_model(str(folder / f"{name}-saved"))
            again = case.divided(folder / f"{name}-resumed")
            last = 6 if name == "the best" else 10
            again.train(resume_from_checkpoint=str(folder / name / f"checkpoint-{last}"))
            found = {"trained": whole_weights(one.model), "resumed": whole_weights(again.model), "losses": losses(one)}
            torch.save(found, folder / f"{name}-{number}.pt")
        read = of_texts(folder / "texts", RANKS, fsdp=True)
        read.train()
        torch.save({"trained": whole_weights(read.model)}, folder / f"texts-{number}.pt")
        rows = Case("torchjd:TrimmedMean", {"trim_number": 1}, 3).divided(folder / "rows")
        with pytest.raises(UserError, match="reads whole gradients"):
            rows.train()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two ranks have made."""
    folder = tmp_path_factory.mktemp("ranks")
    code = "import pathlib, sys, test_sharded_ranks as t; t.rank(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    shared = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(number)],
            cwd=Path(__file__).parent,
            env=os.environ | shared | {"GLOO_SOCKET_IFNAME": "lo", "RANK": str(number), "LOCAL_RANK": str(number)},
        )
        for number in range(RANKS)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * RANKS
    return folder


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=bound, atol=bound, msg=name)


@pytest.mark.check
@pytest.mark.parametrize("name", CASES)
def test_divided_weights_are_those_of_one_process(ranks: Path, tmp_path: Path, name: str) -> None:
    one = CASES[name].trainer(tmp_path, save_strategy="steps")
    one.train()
    expected = whole_weights(one.model)
    for number in range(RANKS):
        found = torch.load(ranks / f"{name}-{number}.pt", weights_only=True)
        assert_same(found["trained"], expected)
        assert_same(found["resumed"], found["trained"], 1e-6)
        assert found["losses"] == pytest.approx(losses(one), abs=1e-5)
    if name != "in shards":
        assert_same(load_file(ranks / f"{name}-saved" / "model.safetensors"), expected)


@pytest.mark.check
def test_divided_weights_of_texts_are_those_of_one_process(ranks: Path, tmp_path: Path) -> None:
    one = of_texts(tmp_path)
    one.train()
    for number in range(RANKS):
        found = torch.load(ranks / f"texts-{number}.pt", weights_only=True)
        assert_same(found["trained"], whole_weights(one.model))

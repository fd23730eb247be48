"""README's loop in Python against the recipe that means the same."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

import multitune as mt
from builders import prepared, recipe
from multitune.training.optimizer import make_optimizer
from multitune.training.run import Run

README = Path(__file__).parents[2] / "README.md"
BUDGET = 50


class Model:
    """The readers' model: a batch is a language's turn."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def loss(self, batch: int) -> Tensor:
        return self._run.loss(batch)


def test_the_readmes_loop_trains_what_the_recipe_trains(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    """On the same batches, with the same dropout and a constant rate, both ship the same bits.

    50 steps with K = 2 close every inner loop, and 49 leave one to ``finish()``.
    """
    (loop,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for budget in (BUDGET, BUDGET - 1):
        keys: dict[str, Any] = {"schedule": "constant", "warmup": 0, "clip": None, "validate_every": 1000}
        options = {"inner_steps": budget // 24, "outer_lr": 0.5}
        one = recipe(tiny_model, tiny_panx, "sequential_reptile", budget=budget, options=options, dropout=0.1, **keys)
        mt.train(one, tmp_path / str(budget))

        run = prepared(one)
        turns = [number for _ in range(budget) for number in run.update.draw(1)]
        optimizer = make_optimizer(run.encoder.parameters(), one, {}, ())
        exec(loop, {"model": Model(run), "optimizer": optimizer, "batches": turns})
        run.encoder.save(tmp_path / f"loop-{budget}")
        shipped = [tmp_path / str(budget) / "model", tmp_path / f"loop-{budget}"]
        first, second = ((folder / "model.safetensors").read_bytes() for folder in shipped)
        assert first == second

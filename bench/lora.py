"""What an outer step does to low-rank adapters: A and B interpolated, or a share of s B A merged and B restarted at 0.

    python bench/lora.py [--budget 240] [--seeds 3] [--layers 3] [--eta 0.5 1.0]

Each run trains adapters of the offline encoder on the voice assistant's sentences in four languages, one language a
step, with an outer step every 24th of the budget, in one loop whose outer step alone differs. Printed for each: the
mean loss of the last tenth of the steps, accuracy on languages that were trained on and on others, the distance of the
merged weights from the pretrained ones, and of interpolated A and B how far their product is from the interpolated
product, as a share of the step.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from multitune.evaluation.scoring import evaluate
from multitune.recipe import Recipe
from multitune.training.loading import load_corpus, load_plan
from multitune.training.optimizer import learning_rate
from multitune.training.run import Run, prepare

NAME = "default"
KEYS: dict[str, Any] = {
    "data": "assistant",
    "languages": ["de", "fr", "sw", "fi"],
    "unseen": ["nl", "it", "et", "tr"],
    "train_limit": 200,
    "dev_limit": 10,
    "test_limit": 40,
    "max_length": 32,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "method": "sequential",
    "precision": "fp32",
}


@dataclass
class Loop:
    """A run, and where the newest outer step has left its weights.

    Attributes:
        start: the adapted weights as pretraining left them.
        slow: of the weights that train.
        gaps: of each outer step.
    """

    run: Run
    layers: list[Any]
    start: list[Tensor]
    slow: list[Tensor] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    @property
    def weights(self) -> list[nn.Parameter]:
        """Those that train."""
        return [weight for _, weight in self.run.encoder.parameters()]


def adapted(run: Run) -> list[Any]:
    """The layers that have adapters."""
    return [module for module in run.encoder.model.modules() if hasattr(module, "lora_A")]


def product(layer: Any) -> Tensor:
    """S B A."""
    made: Tensor = layer.get_delta_weight(NAME).double()
    return made


def interpolate(loop: Loop, eta: float) -> None:
    """A and B, as all weights that train, go a share eta of their way."""
    ends = [product(layer) for layer in loop.layers]
    fast = [weight.detach().clone() for weight in loop.weights]
    for weight, slow in zip(loop.weights, loop.slow, strict=True):
        weight.copy_(slow)
    starts = [product(layer) for layer in loop.layers]
    for weight, slow, end in zip(loop.weights, loop.slow, fast, strict=True):
        weight.copy_(slow.lerp_(end, eta))
    apart, way = 0.0, 0.0
    for layer, start, end in zip(loop.layers, starts, ends, strict=True):
        apart += float((product(layer) - start.lerp(end, eta)).square().sum())
        way += float((eta * (end - start)).square().sum())
    loop.gaps.append((apart / way) ** 0.5)


def merge(loop: Loop, eta: float) -> None:
    """The base takes in eta s B A, and B begins at 0 again; A stays, and the head goes a share eta of its way."""
    adapters = {id(part[NAME].weight) for layer in loop.layers for part in (layer.lora_A, layer.lora_B)}
    for weight, slow in zip(loop.weights, loop.slow, strict=True):
        if id(weight) not in adapters:
            weight.copy_(slow.lerp_(weight.detach(), eta))
    for layer in loop.layers:
        base = layer.get_base_layer().weight
        base.add_((eta * product(layer)).to(base.dtype))
        layer.lora_B[NAME].weight.zero_()


def merge_and_reset(loop: Loop, eta: float) -> None:
    """As ``merge``; AdamW begins anew."""
    merge(loop, eta)
    loop.run.update._optimizer.state.clear()  # type: ignore[attr-defined]


OUTER: dict[str, Callable[[Loop, float], None]] = {
    "interpolate A and B": interpolate,
    "merge, B = 0": merge,
    "merge, B = 0, AdamW reset": merge_and_reset,
}


def trained(recipe: Recipe, outer: Callable[[Loop, float], None], etas: Sequence[float]) -> list[float]:
    """Loss, accuracy on seen and unseen languages, drift, mean gap of a run."""
    corpus = load_corpus(recipe)
    run = prepare(recipe, corpus, load_plan(recipe))
    layers = adapted(run)
    loop = Loop(run, layers, [layer.get_base_layer().weight.detach().clone() for layer in layers])
    loop.slow = [weight.detach().clone() for weight in loop.weights]
    losses: list[float] = []
    steps = max(1, recipe.budget // 24)
    for done in range(recipe.budget):
        run.update.advance(learning_rate(recipe, done), done / recipe.budget)
        drawn = run.update.draw(1)
        losses += run.update.step(drawn, [run.next_loss(drawn[0], [])])
        if (done + 1) % steps == 0 or done + 1 == recipe.budget:
            with torch.no_grad():
                outer(loop, etas[0] + (etas[1] - etas[0]) * done / recipe.budget)
    with torch.no_grad():
        far = [layer.get_base_layer().weight + product(layer) - w for layer, w in zip(layers, loop.start, strict=True)]
        drift = float(torch.stack([each.square().sum() for each in far]).sum().sqrt())
    scores = evaluate(run.encoder, run.heads, run.test, "fp32").scores
    seen, unseen = (
        [own["accuracy"] for k, own in scores.items() if (k in corpus.train) == side] for side in (True, False)
    )
    late = losses[-max(1, recipe.budget // 10) :]
    gap = sum(loop.gaps) / len(loop.gaps) if loop.gaps else 0.0
    return [sum(late) / len(late), sum(seen) / len(seen), sum(unseen) / len(unseen), drift, gap]


def main() -> None:
    parser = argparse.ArgumentParser(description="The outer step of two-loop methods under LoRA.")
    parser.add_argument("--budget", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--eta", type=float, nargs=2, default=(0.5, 1.0), help="at the beginning and the end")
    given = parser.parse_args()
    print(f"eta {given.eta[0]} to {given.eta[1]}, K = {max(1, given.budget // 24)}, {given.seeds} seeds")
    print("outer step | loss | seen | unseen | drift | gap")
    for name, outer in OUTER.items():
        rows = []
        for seed in range(given.seeds):
            keys = KEYS | {"budget": given.budget, "layers": given.layers, "seed": seed, "lora": {"rank": given.rank}}
            rows.append(trained(Recipe(**keys), outer, given.eta))
        means = torch.tensor(rows).mean(0).tolist()
        spread = torch.tensor(rows).std(0).tolist() if given.seeds > 1 else [0.0] * len(means)
        cells = (f"{mean:.3f} ± {std:.3f}" for mean, std in zip(means, spread, strict=True))
        print(f"{name} | {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()

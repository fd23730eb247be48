"""How a missing pooler is initialised, and what that is worth: dev accuracy on `data: assistant` after few gradients.

python bench/pooler.py
"""

import argparse

import torch

from multitune.evaluation.scoring import evaluate
from multitune.models.poolers import GAIN
from multitune.recipe import Recipe
from multitune.training.loading import load_corpus, load_plan
from multitune.training.optimizer import learning_rate
from multitune.training.run import prepare


def accuracy(recipe: Recipe, gain: float | None) -> float:
    """Mean dev accuracy in percent with a pooler that begins as ``gain`` times the identity, or (None) random."""
    corpus = load_corpus(recipe)
    run = prepare(recipe, corpus, load_plan(recipe))
    pooler = run.encoder.model.get_parameter("bert.pooler.dense.weight")
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        if gain is None:
            pooler.normal_(std=run.encoder.model.config.initializer_range)
        else:
            pooler.copy_(gain * torch.eye(len(pooler)))
    for gradient in range(recipe.budget):
        run.update.advance(learning_rate(recipe, gradient), gradient / recipe.budget)
        drawn = run.update.draw(1)
        run.update.step(drawn, (run.loss(number) for number in drawn))
    return evaluate(run.encoder, run.heads, run.dev, run.precision).average(run.heads.metric)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=600, help="gradient computations")
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    recipe = Recipe(
        data="assistant",
        unseen=(),
        layers=options.layers,
        dropout=0.0,
        method="sequential",
        learning_rate=3e-4,
        budget=options.budget,
    )
    print(f"{options.layers} layers, {options.budget} gradient computations, mean dev accuracy of 12 languages")
    for gain in (None, 1.0, GAIN, 2 * GAIN):
        print(f"{'random' if gain is None else f'{gain:g} x identity':14} {accuracy(recipe, gain):.1f}", flush=True)


if __name__ == "__main__":
    main()

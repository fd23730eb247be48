"""A run's optimizer and its learning rate."""

from torch.optim import AdamW, Optimizer

from multitune.plans.update import NamedParameters
from multitune.recipe import Recipe


def make_optimizer(parameters: NamedParameters, recipe: Recipe) -> Optimizer:
    """AdamW, fused; weight decay on matrices that are not embeddings."""
    decayed = [weight for name, weight in parameters if weight.ndim > 1 and "embedding" not in name]
    others = [weight for name, weight in parameters if weight.ndim < 2 or "embedding" in name]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=recipe.learning_rate, fused=True)


def learning_rate(recipe: Recipe, gradients: int) -> float:
    """The rate of a step that begins after ``gradients`` computations: linear warm-up, then constant or to zero."""
    rising = recipe.warmup * recipe.budget
    if gradients < rising:
        return recipe.learning_rate * (gradients + 1) / (rising + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * (recipe.budget - gradients) / (recipe.budget - rising)

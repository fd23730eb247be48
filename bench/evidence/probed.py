"""What the probes of a run say, while it trains and of its model, as the store keeps it."""

from pathlib import Path
from statistics import fmean
from typing import Any

import multitune as mt
from multitune.recipe import Recipe
from multitune.results.metrics import Probe, read_events
from multitune.results.probes import Skill
from multitune.training.arithmetic import computing_as
from plan import ROOT, Plan


def train_heads(plan: Plan, setting: str, work: Path) -> None:
    """Have the head for masked tokens that the runs of a setting are probed with, where none is there yet."""
    recipe = plan.settings[setting].recipe
    keys = {"layers": recipe["layers"]} | {key: plan.common[key] for key in ("precision", "threads", "device")}
    mt.train(ROOT / "recipes" / "mlm_head.yaml", _head(recipe["layers"], work), overrides=keys, resume=True)


def findings(recipe: Recipe, run: Path, work: Path) -> dict[str, Any]:
    """The series of a run's probes in training, and what its model still finds and guesses."""
    series = [
        {"gradients": each.gradients, "loss": fmean(each.losses), "cosine": each.cosine, "drift": each.drift}
        for each in read_events(run)
        if isinstance(each, Probe)
    ]
    with computing_as(recipe):
        found = mt.probe(run, {"device": recipe.device}, mlm_head=_head(recipe.layers, work))
    return {"probes": series, "skills": {"retrieval": _sides(found.retrieval), "masked_lm": _sides(found.masked_lm)}}


def _head(layers: int | None, work: Path) -> Path:
    return work / f"mlm-head-{layers}"


def _sides(skill: Skill | None) -> dict[str, float | None]:
    """Its averages over seen and over unseen languages, and those of the pretrained model."""
    assert skill is not None
    seen, unseen = skill.average.seen, skill.average.unseen
    assert seen is not None
    assert unseen is not None
    before = {"seen before": seen.pretrained, "unseen before": unseen.pretrained}
    return {"seen": seen.tuned, "unseen": unseen.tuned} | before

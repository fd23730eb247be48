"""Probes of a run while it trains: on which examples, whether there are any, and what each measures."""

from collections.abc import Callable
from contextlib import nullcontext

from multitune.probes import live
from multitune.probes.gradient_similarity import Similarity, held_out, measure
from multitune.training.run import Run


class Probes:
    """The probes of a run.

    Args:
        run: what trains.
        say: told, in words, why a run that was to have probes has none.

    Attributes:
        interval: gradient computations between two of them; None where there are none.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self._run, self._held_out = run, held_out(run.dev_by_task, run.recipe.probe_batch)
        self.interval = live.interval(run.recipe, len(self._held_out))
        if self.interval and len(run.encoder.own_heads) == len(run.encoder.parameters()):
            self.interval = None
            say("no probes: the tasks share no weights that train")
        elif run.recipe.probe_every is not None and self.interval is None:
            say(f"no probes: {live.why_none(len(self._held_out))}")

    def measured(self) -> tuple[Similarity, dict[str, float]]:
        """The similarity of the tasks' gradients at the weights that would ship now, and how far each weight moved.

        Raises:
            Diverged: the loss or gradient of a task is not finite.
        """
        run = self._run
        with run.update.shipped_weights(), nullcontext() if run.loss_scale is None else run.loss_scale.off():
            return measure(run.encoder, run.heads, self._held_out, run.precision), run.encoder.moved()

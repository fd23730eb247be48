"""What a checkpoint holds of a run, taken from it and put back."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from multitune.training.checkpoint import Damaged, Progress, RunState
from multitune.training.run import Run


def taken(
    run: Run, progress: Progress, recipe: str, log: str, weights: Mapping[str, Tensor], update: dict[str, Any]
) -> RunState:
    """The state of a run between two steps; its tensors are those that the run goes on with, not copies.

    Args:
        recipe: the run's, as YAML.
        log: the text of its metrics.jsonl.
        weights: that train, by name; where ranks share them, put together.
        update: the state of the method; where ranks share it, put together.
    """
    return RunState(
        progress=progress,
        recipe=recipe,
        digests=run.digests,
        log=log,
        weights=dict(weights),
        update=update,
        batches={language: batches.state_dict() for language, batches in run.batches.items()},
    )


def restore(run: Run, state: RunState) -> None:
    """Put a checkpoint's state into the run; raises ``Damaged`` where it does not fit."""
    try:
        run.encoder.load_weights(state.weights)
        run.update.load_state_dict(state.update)
        for language, batches in run.batches.items():
            batches.load_state_dict(state.batches[language])
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise Damaged(f"it does not fit the run: {str(error).splitlines()[0]}") from error

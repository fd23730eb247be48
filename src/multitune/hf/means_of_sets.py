"""Evaluation on several data sets in a Trainer: the metrics of each, and their means."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from multitune.hf.metrics import name_after, objective_of_means, with_means

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # the class beside the mixin brings it


class MeansOfSets(Trainer):
    """What lets a Trainer tell, log and select by the means over a dict of data sets."""

    _evaluated: tuple[str, str] | None = None

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **kwargs: Any,
    ) -> dict[str, float]:
        """The Trainer's metrics; of a dict of data sets those of each, and under the plain names their means."""
        sets = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(sets, dict):
            return super().evaluate(
                eval_dataset=eval_dataset, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix, **kwargs
            )
        by_set = {}
        for name, one in sets.items():
            with self._evaluating(metric_key_prefix, name):
                chosen, prefix = name if eval_dataset is None else one, f"{metric_key_prefix}_{name}"
                by_set[name] = self.evaluate(
                    eval_dataset=chosen, ignore_keys=ignore_keys, metric_key_prefix=prefix, **kwargs
                )
        metrics, means = with_means(by_set, metric_key_prefix)
        self.log(means)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, means)
        return metrics | means

    def hyperparameter_search(
        self, hp_space: Any = None, compute_objective: Any = None, *more: Any, **kwargs: Any
    ) -> Any:
        """The Trainer's; of several data sets the default objective is of their means."""
        if compute_objective is None and isinstance(self.eval_dataset, dict):
            compute_objective = partial(objective_of_means, tuple(self.eval_dataset))
        return super().hyperparameter_search(hp_space, compute_objective, *more, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as the Trainer does; the scores of one of several data sets have its name afterwards."""
        super().log(logs, start_time)
        if self._evaluated is not None:
            name_after(logs, *self._evaluated)

    @contextmanager
    def _evaluating(self, prefix: str, name: str) -> Iterator[None]:
        self._evaluated = prefix, name
        try:
            yield
        finally:
            self._evaluated = None

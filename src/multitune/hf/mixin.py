"""A method at work in a Trainer: where it gets its batches, its optimizer, its gradients and its weights."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler

from multitune.errors import UserError
from multitune.hf.batches import Sampling, Shares, find_tasks
from multitune.hf.callback import Events
from multitune.hf.draws import check_turn, draws
from multitune.hf.means_of_sets import MeansOfSets
from multitune.hf.order import Draw, ExampleOrder
from multitune.hf.rows import StepRows, share_of_items
from multitune.hf.settings import check, check_inner, check_sharding, has_its_own, leaves_out_method, plan_of
from multitune.hf.setup import setup_of
from multitune.hf.steps import accumulation_of, shape_of_step, steps_of_training
from multitune.methods.two_loop import TwoLoop
from multitune.methods.two_loop_state import Weights
from multitune.models.sharding import reshard
from multitune.plans.combined import SeveralTasks
from multitune.plans.combined_update import CombinedUpdate
from multitune.plans.plain import PlainPlan
from multitune.plans.two_loop_update import TwoLoopUpdate
from multitune.plans.update import Setup, Update

logger = logging.getLogger(__name__)


class MultitaskMixin(MeansOfSets):
    """What makes a Trainer one with a method: ``class MultitaskSFTTrainer(MultitaskMixin, SFTTrainer): pass``.

    - ``sequential_reptile``, ``fish``, ``reptile`` and ``sequential``: all micro-batches of a step, on all ranks, are
      of one task.
    - Combining methods (``mtl``, ``pcgrad``, ``gradvac``, ...): a step has ``gradient_accumulation_steps`` tasks, one
      of each micro-batch, and combines the gradients of their own mean losses.
    - ``mixed`` and ``lookahead``: the Trainer's own batches; with ``task_column`` each example's task is drawn.

    Where a method has slow weights, these are evaluated, selected, saved and pushed. The last inner loop is closed
    before the last evaluation and save. With a dict as ``eval_dataset`` there is also the mean of each metric, under
    the name that it has with one data set: ``metric_for_best_model="loss"`` is the mean loss.

    Args:
        given: what the Trainer takes by place, in its order.
        task_column: the column of ``train_dataset`` that has each row's task, such as its language.
        method: as recipes name it.
        options: of the method, as in recipes. ``tasks_per_step`` is ``gradient_accumulation_steps``.
        sampling: how often each task comes: "proportional", "uniform" or "unimax".
        sampling_exponent: q of "proportional", p_t ~ N_t^q.
        sampling_epochs: the most often that "unimax" repeats a task's examples.
        kwargs: the Trainer's. An optimizer among them is the inner one.

    Raises:
        UserError: a method, an option or a setting that does not go with the others.
    """

    def __init__(
        self,
        *given: Any,
        task_column: str | None = None,
        method: str = "sequential_reptile",
        options: Mapping[str, Any] | None = None,
        sampling: Sampling = "proportional",
        sampling_exponent: float = 0.2,
        sampling_epochs: float = 5.0,
        **kwargs: Any,
    ) -> None:
        self._shares = Shares(sampling, sampling_exponent, sampling_epochs)
        self._plan = plan_of(method, options or {}, accumulation_of([*given, *kwargs.values()]))
        if task_column is None and not self._plan.mixes_tasks:
            raise UserError(f"task_column: {method} needs it: the column of train_dataset that has each row's language")
        self._task_column = task_column
        self._order: ExampleOrder | None = None
        self._draw: Draw | None = None
        self._names: Sequence[Any] = ()
        self._probabilities = torch.ones(1, dtype=torch.float64)
        self._total_steps = self._fitted_steps = 0
        self._update: Update | None = None
        self._rows: StepRows | None = None
        self._own_optimizer: Optimizer | None = None
        self._judged_step = -1
        self._epoch: int | None = None
        self._order_is_used = False
        super().__init__(*given, **kwargs)
        check(self._plan, self.args, own_batches=task_column is not None)
        check_sharding(self._plan, getattr(self.accelerator.state, "fsdp_plugin", None))
        self.add_callback(Events(self))

    @property
    def two_loop(self) -> TwoLoop | None:
        """The optimizer with the slow weights, once training has made it; None for methods without them."""
        return self._own_optimizer if isinstance(self._own_optimizer, TwoLoop) else None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The Trainer's, with the method's order of examples.

        Raises:
            UserError: no such column, rows without a task, fewer tasks than a step combines, or a Trainer that makes
                its batches in a way of its own.
        """
        if self._task_column is not None and self.train_dataset is not None:
            self._order, self._order_is_used = self._new_order(self._task_column), False
        loader = super().get_train_dataloader()
        if self._order is not None and not self._order_is_used:
            raise has_its_own(self, "batches")
        self._total_steps = steps_of_training(self.args, loader, self.args.gradient_accumulation_steps)
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        own = super()._get_train_sampler(train_dataset)
        if self._order is None:
            return own
        if not isinstance(own, RandomSampler):
            raise has_its_own(self, f"order of examples ({type(own).__name__})")
        self._order_is_used = True
        return self._order

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The Trainer's optimizer, or the one that it was given, with the method around it.

        Raises:
            UserError: the optimizer cannot be an inner one, or an option does not fit the training.
        """
        made = super().create_optimizer() if model is None else super().create_optimizer(model)
        trained = self.model if model is None else model
        assert trained is not None
        if getattr(made, "optimizer", made) is not self._own_optimizer:  # accelerate has wrapped one that is ours
            self._own_optimizer = made = self.optimizer = self._build(made, trained)
        elif self.two_loop is not None and self._fitted_steps != self._total_steps:
            if self.state.global_step == 0:  # else a checkpoint's weights are loaded already
                self.two_loop.close_inner_loop()
            self._own_optimizer = made = self.optimizer = self._around(self.two_loop.inner, trained)
        return made

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The Trainer's; with a combining method a micro-batch's gradient becomes its task's row."""
        if self._rows is None:
            self._free_gathered(before="fast")
            return super().training_step(model, inputs, num_items_in_batch)
        self.current_gradient_accumulation_steps = 1  # a row is the gradient of the mean over its own items
        items = None if self.compute_loss_func is None else self._get_num_items_in_batch([inputs], self.args.device)
        loss = super().training_step(model, inputs, items)
        self._rows.collect(loss)
        if self.accelerator.sync_gradients:
            scaler = self.accelerator.scaler
            at_fault = self._rows.apply(1.0 if scaler is None else scaler.get_scale())
            if at_fault and scaler is None:
                self._leave_out(at_fault)
        return loss / self.args.gradient_accumulation_steps

    def _leave_out(self, tasks: Sequence[int]) -> None:
        """Let the optimizer find no gradients in a step, as recipes do; a gradient scaler does so by itself."""
        for weight in self.model.parameters():  # type: ignore[union-attr]
            weight.grad = None
        logger.warning(
            "step %d is left out: the loss or gradient of %s is not finite",
            self.state.global_step + 1,
            ", ".join(f"{self._task_column} {self._names[task]}" for task in tasks),
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The Trainer's; for a row the mean over the items of all ranks, once DDP has taken the mean over the ranks.

        Where the number of items is given, the Trainer itself sees to the ranks.
        """
        if self._rows is None or not model.training or num_items_in_batch is not None:
            return super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        share = share_of_items(self, inputs)
        outcome: Any = super().compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )
        return (outcome[0] * share, outcome[1]) if return_outputs else outcome * share

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, with the slow weights, where the method has them."""
        self._free_gathered(before="slow")
        return super().evaluation_loop(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the slow weights, where the method has them."""
        with self._slow_weights():
            super().save_model(output_dir, _internal_call=_internal_call)

    def begin_training(self) -> None:
        """Say what is known before the first step, end what broke off, and let DDP average every row.

        Raises:
            UserError: a class below this one has replaced what brings the method's batches, or its optimizer.
        """
        self._check_parts()
        self._judged_step, self._epoch = -1, None
        if self.two_loop is not None and self.state.global_step == 0:
            self.two_loop.close_inner_loop()  # of a training that was interrupted: loops begin with the order of tasks
            self._begin_slow_weights_anew()
        self._make_rows()
        for note in self._update.notes if self._update else ():
            logger.warning(note)
        if self._rows is not None:
            self._rows.restart()
            state = self.accelerator.gradient_state
            state.plugin_kwargs = state.plugin_kwargs | {"sync_each_batch": True}

    def begin_epoch(self, step: int) -> None:
        """Let the batches be those of the next epoch, which begins, or goes on, with a step of the training.

        accelerate's loader does not tell them on every rank. A callback may have cut the epoch before short.
        """
        if self._order is None:
            return
        length = self._order.steps_per_epoch
        self._epoch = step // length if self._epoch is None else self._epoch + 1
        self._order.set_epoch(self._epoch)
        self._order.left_out = max(0, self._epoch * length - step)

    def begin_step(self, step: int) -> None:
        """Tell the method how far training is, and whose micro-batches come.

        The weights are those to train, also for a ``training_step`` of one's own, which leaves the optimizer alone.

        Raises:
            UserError: the batches are not those of the inner loop.
        """
        loop = self.two_loop
        if loop is not None:
            self._free_gathered(before="fast")
            loop.train()
            loop.progress = step / self.state.max_steps
        if self._order is None:
            return
        tasks = self._order.tasks(step)
        check_turn(self._draw, loop, step, tasks[0])
        if self._rows is not None:
            self._rows.begin(tasks)

    def check_step(self) -> None:
        """Make sure that a step's gradients, all of which have come, are the method's.

        Raises:
            UserError: a class above this one computes them past it, or a weight trains that did not when it began.
        """
        if self._rows is not None:
            self._rows.check(self)

    def end_step(self) -> None:
        """Let a step that the gradient scaler has left out count as one of its inner loop, as it does in the order."""
        if self.two_loop is not None and self.accelerator.optimizer_step_was_skipped:
            self.two_loop.pass_turn()

    def end_training(self) -> None:
        """Close the last inner loop, unless the last step's slow weights were evaluated or saved already.

        From then on the model holds the slow weights. Where the best model was loaded, no loop is open.
        """
        if self.state.global_step != self._judged_step and self._update is not None:
            self._update.finish()
        if self.two_loop is not None:
            self.two_loop.eval()

    def _slow_weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self.two_loop is None else self.two_loop.slow_weights()

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """End training before what is evaluated and saved last."""
        if self.control.should_training_stop:
            self.end_training()
        if self.control.should_evaluate or self.control.should_save:
            self._judged_step = self.state.global_step
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save the slow weights, and let ``on_save`` find them, as ``on_evaluate`` does.

        The optimizer's state says that it is these that the model's file has.
        """
        if self.two_loop is not None:
            self.two_loop.eval()
        super()._save_checkpoint(*args, **kwargs)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._begin_slow_weights_anew()

    def _begin_slow_weights_anew(self) -> None:
        """Let slow and fast weights be those of the model, where others than the last training's may be loaded by now.

        An inner loop that was open is dropped.
        """
        if self.two_loop is not None and self.two_loop.current_loop:
            self.two_loop.load_state_dict(self.two_loop.inner.state_dict())

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._rows is not None and self.args.should_save:
            self._rows.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        self._check_parts()
        if checkpoint is not None:
            self._begin_slow_weights_anew()  # a checkpoint of save_only_model has no others
        super()._load_optimizer_and_scheduler(checkpoint)
        self._make_rows()
        if self._rows is not None and checkpoint is not None:
            self._rows.load(Path(checkpoint))

    def _build(self, optimizer: Optimizer, model: nn.Module) -> Optimizer:
        """Put the method around an optimizer of the model's weights."""
        self._update, self._rows = None, None
        if isinstance(self._plan, PlainPlan):
            return optimizer
        check_inner(self._plan, optimizer, sharded=self.accelerator.is_fsdp2)
        if not self._total_steps:
            loader = self.get_train_dataloader()  # of a class below, perhaps, which does not come here
            self._total_steps = steps_of_training(self.args, loader, self.args.gradient_accumulation_steps)
        if isinstance(self._plan, SeveralTasks):
            return optimizer
        return self._around(optimizer, model)

    def _around(self, optimizer: Optimizer, model: nn.Module) -> Optimizer:
        """Put slow weights around an optimizer, and loops that fit the steps of the training."""
        self._fitted_steps = self._total_steps
        self._update = self._plan.build(self._setup(self._total_steps, optimizer, model))
        assert isinstance(self._update, TwoLoopUpdate)
        return self._update.two_loop

    def _check_parts(self) -> None:
        if self._task_column is not None and self._order is None:
            raise has_its_own(self, "batches")
        if isinstance(self._plan, PlainPlan):
            return
        if getattr(self.optimizer, "optimizer", self.optimizer) is not self._own_optimizer:
            raise leaves_out_method(self)

    def _make_rows(self) -> None:
        """Prepare to combine gradients, once accelerate has placed and divided the weights that they are of."""
        if self._rows is None and isinstance(self._plan, SeveralTasks):
            update = self._plan.build(self._setup(self._total_steps, self._own_optimizer, self.model))
            assert isinstance(update, CombinedUpdate)
            assert self._own_optimizer is not None
            self._update, self._rows = update, StepRows(update, self._own_optimizer)

    def _free_gathered(self, *, before: Weights) -> None:
        """Let the next forward pass gather FSDP's weights anew where slow and fast ones trade places before it.

        After a forward pass without a backward pass torch keeps some of them gathered.
        """
        if self.two_loop is not None and self.two_loop.parameters_hold != before:
            assert self.model is not None
            reshard(self.model)

    def _setup(self, steps: int, optimizer: Optimizer | None = None, model: nn.Module | None = None) -> Setup:
        """What a method has to know, with an optimizer or, for its draws alone, without."""
        named = () if model is None else model.named_parameters()
        return setup_of(named, self._probabilities, steps, self._seed, optimizer)

    @property
    def _seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _new_order(self, column: str) -> ExampleOrder:
        tasks = find_tasks(self.train_dataset, column)
        count, examples = shape_of_step(self, self._plan)
        if isinstance(self._plan, SeveralTasks) and count > len(tasks.names):
            raise UserError(
                f"gradient_accumulation_steps: {count} distinct tasks a step, and column {column!r} has "
                f"{len(tasks.names)}; set it to that at most"
            )
        steps = steps_of_training(self.args, range(sum(tasks.sizes)), count * examples)
        self._names, self._probabilities = (
            tasks.names,
            self._shares.probabilities(tasks.sizes, steps * count * examples),
        )
        self._draw = draws(self._plan, self._setup(steps), count)
        return ExampleOrder(
            tasks.examples, self._draw, tasks_per_step=count, examples_per_task=examples, seed=self._seed
        )

"""The one training loop, and what stands around it: validating, checkpoints, faults, shipping."""

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import Signals

from multitune.data.corpus import Corpus
from multitune.errors import DivergedError, Interrupted, RunError
from multitune.evaluation.scoring import Encoded, Evaluation, evaluate, write_predictions
from multitune.methods.base import NonFiniteError
from multitune.methods.ranks import Ranks
from multitune.methods.sharded import gathered
from multitune.models.loss_scale import following
from multitune.probes import live
from multitune.probes.gradient_similarity import Diverged
from multitune.recipe_files import to_yaml
from multitune.results import metrics, predictions
from multitune.results.json_files import finite
from multitune.results.metrics import Event, FaultyBatch, Skip, Train, Validate, When
from multitune.results.run import RunResult, finite_scores
from multitune.storage.atomic import replaced
from multitune.storage.interrupt import StopRequested, StopSignal
from multitune.training import checkpoint, estimate, launch, run_state
from multitune.training.checkpoint import Damaged, Progress, RunState
from multitune.training.checkpoint_writer import CheckpointWriter
from multitune.training.metrics_log import MetricsLog
from multitune.training.optimizer import learning_rate
from multitune.training.outcome import most_memory, result_of, write_model
from multitune.training.probing import Probes
from multitune.training.progress import Display
from multitune.training.run import Run, Taken
from multitune.training.run_folder import CHECKPOINTS
from multitune.training.tracking import Log, tracking
from multitune.versions import versions

ADVICE = "lower learning_rate, or look at the data"
LOG_LINES, LONGEST_WAIT = 100, 50
"""Training lines in the metrics.jsonl of a short run; gradient computations between two lines of a long one."""


class Trainer:
    """One run being trained: its progress, its log, its checkpoints.

    Args:
        run: what is trained.
        out: the run's folder, which is there.
        display: shows a person how it goes.
        stop: notes a signal.
        ranks: that share the tasks of each step, if several do. All of them train and evaluate; rank 0 alone logs,
            probes and writes.
    """

    def __init__(self, run: Run, out: Path, display: Display, stop: StopSignal, ranks: Ranks | None = None) -> None:
        recipe = run.recipe
        self._ranks = ranks or Ranks()
        self._leads = self._ranks.rank == 0
        self._run, self._out, self._display, self._stop = run, out, display, stop
        self._recipe = to_yaml(recipe)
        self._checkpoints = out / CHECKPOINTS
        self._log = MetricsLog(out / metrics.FILE)
        self._track: Log = lambda _: None
        self._writer = CheckpointWriter(self._checkpoints, display.saved)
        self._now = Progress(trained=dict.fromkeys(run.languages, 0))
        self._began = time.monotonic()
        """When the run would have begun if it had gone on without a break."""
        self._saved_at: int | None = None
        self._rate = 0.0
        """The learning rate of the newest step."""
        self._told = False
        self._advice = ADVICE if run.loss_scale is None else f"set precision to bf16 or fp32, {ADVICE}"
        self._log_interval = max(1, min(LONGEST_WAIT, recipe.budget // LOG_LINES))
        self._validation_interval, self._checkpoint_interval = recipe.validation_interval, recipe.checkpoint_every
        self._probes = Probes(run, display.say)

    def begin(self, *, resume: bool) -> None:
        """Continue from the newest good checkpoint where there is one, else begin anew.

        Raises:
            UserError: all checkpoints are damaged, or none fits the run; or a rank has another one, or other data, or
                does not see the folder where it has to.
        """
        run = self._run
        with launch.first_alone(self._ranks):
            if run.recipe.select == "best":
                launch.check_shared(self._ranks, self._out)
            state = self._go_on(resume=resume)
        # within a round of trajectories each rank goes on with its own: what they have read is alike
        weights = [weight for _, weight in run.encoder.parameters()] if state is None else [*state.weights.values()]
        parts = {"versions": versions(), "recipe's keys": self._recipe, "data": run.digests}
        parts |= {"checkpoints": self._now.gradients} | ({} if self._shares_weights else {"weights": weights})
        parts |= {} if run.division is None else {"pseudo-tasks": run.division.assignment}
        launch.check_alike(self._ranks, parts)

    def _go_on(self, *, resume: bool) -> RunState | None:
        restore = partial(run_state.restore, self._run)
        resumed = checkpoint.load_newest(self._checkpoints, self._run.recipe, restore) if resume else (None, [])
        state, damages = resumed
        if self._leads:
            self._log.restore("" if state is None else state.log)
        if state is None:
            return None
        self._now = state.progress
        if self._run.loss_scale is not None and self._now.loss_scale is not None:
            self._run.loss_scale.value = self._now.loss_scale
        self._saved_at = self._now.gradients
        passed_over = "".join(f"{damage}; using the one before: " for damage in damages)
        self._display.say(f"{passed_over}resuming at {self._now.gradients} gradients")
        return state

    def fit(self, track: str | None = None) -> None:
        """Spend the budget; ``track`` names the tracker that shows it live.

        Raises:
            Interrupted: a signal has come; what was learnt is saved.
            RunError: no space for a checkpoint, losses that stay not finite, no step taken, or weights that diverge.
        """
        self._began = time.monotonic() - self._now.seconds
        tracker = tracking(track if self._leads else None, self._run.recipe, self._out, self._now.gradients)
        with tracker as self._track, self._writer:
            try:
                self._spend_budget()
            except StopRequested as stop:
                self._end_early(stop)
            self._writer.wait()

    def ship(self, corpus: Corpus) -> RunResult:
        """Evaluate the weights that the recipe selects on the test split, and write all that a run leaves.

        All ranks evaluate; rank 0 alone writes.

        Raises:
            Interrupted: a signal has come; the newest checkpoint has all that was learnt.
            RunError: the model has diverged, or the checkpoint with the best weights is damaged.
        """
        run, out = self._run, self._out
        self._ranks.meet()  # rank 0 has written its last checkpoint
        if run.recipe.select == "best":
            self._restore_best()
        self._display.say(f"evaluating {len(corpus.test)} languages")
        with run.update.shipped_weights():
            try:
                evaluation = self._evaluated(run.test)
            except StopRequested as stop:
                raise Interrupted("stopped in the last evaluation; --resume goes on with that", stop.signal) from stop
            result = result_of(run, self._now, corpus, evaluation, time.monotonic() - self._began)
            if run.recipe.save_model:
                self._save_model(result, "dev" if corpus.test_is_dev else "test")
            if not self._leads:
                return result
        with replaced(out / predictions.FILE) as beside:
            write_predictions(beside, run.heads, run.test, evaluation)
        result.write(out)
        if not run.recipe.keep_checkpoints:
            checkpoint.clear(self._checkpoints)
        return result

    def _spend_budget(self) -> None:
        if self._validation_due:  # where a resumed run was stopped
            self._validate()
        while not (self._spent or self._out_of_patience):
            if (signal := self._asked_to_stop) is not None:
                raise StopRequested(signal)
            before = self._now.gradients
            self._step()
            if self._passed(self._log_interval, before) or self._spent:
                self._report()
            if self._leads and self._probes.interval and (self._passed(self._probes.interval, before) or self._spent):
                self._probe()
            if self._validation_due:
                self._validate()
            elif self._checkpoint_interval and self._passed(self._checkpoint_interval, before):
                self._save_state()
        if self._now.steps == 0:
            raise DivergedError(
                f"no step was taken: a loss or gradient of all {self._now.skipped_steps} was not finite (metrics.jsonl "
                f"names the batches); {self._advice}"
            )

    def _step(self) -> None:
        run, recipe, now = self._run, self._run.recipe, self._now
        begins, began = now.gradients, time.monotonic()
        self._rate = learning_rate(recipe, begins)
        run.update.advance(self._rate, begins / recipe.budget)
        drawn = run.update.draw((recipe.budget - begins) // run.update.cost)
        taken: list[Taken] = []
        losses = (run.next_loss(number, taken) for number in drawn)
        now.gradients += run.update.cost * len(drawn)
        try:
            now.losses += run.update.step(drawn, losses)
        except NonFiniteError as error:
            at_fault = [n for n, number in enumerate(drawn) if number in error.tasks]
            faulty = at_fault if error.places is None else error.places
            if error.places is not None and len(faulty) < len(taken):
                self._count([batch for place, batch in enumerate(taken) if place not in faulty])
            if error.what == "gradient":
                self._scale(overflowed=True)
            at = [taken[place] for place in faulty]
            self._skip(error.what, [at] if error.places is None else [[batch] for batch in at])
        else:
            self._count(taken)
            self._scale(overflowed=False)
        if self._spent:
            run.update.finish()
        now.step_seconds += time.monotonic() - began
        now.seconds = time.monotonic() - self._began

    def _scale(self, *, overflowed: bool) -> None:
        """Set the next step's loss scale, where there is one."""
        now, scale = self._now, self._run.loss_scale
        if scale is not None:
            scale.value, now.steps_at_scale = following(scale.value, now.steps_at_scale, overflowed=overflowed)
            now.loss_scale = scale.value

    def _count(self, taken: Sequence[Taken]) -> None:
        """Count the batches that a step was taken with."""
        now, update = self._now, self._run.update
        now.steps, now.skipped_in_a_row = now.steps + update.optimizer_steps(len(taken)), 0
        for batch in taken:
            for language in batch:
                now.trained[language] += update.cost

    @property
    def _asked_to_stop(self) -> Signals | None:
        """The signal that has come, if any; to any rank, as all of them know since the newest step."""
        self._ranks.wanted = self._stop.requested or 0
        return Signals(self._ranks.agreed) if self._ranks.agreed else None

    @property
    def _spent(self) -> bool:
        """Whether the budget is spent, but for a rest too small for a step."""
        return self._run.recipe.budget - self._now.gradients < self._run.update.smallest_step

    @property
    def _out_of_patience(self) -> bool:
        """Whether dev has not risen for as many validations as the recipe allows."""
        patience = self._run.recipe.patience
        return patience is not None and self._now.since_peak >= patience

    @property
    def _validation_due(self) -> bool:
        ends = self._spent and self._now.validated < self._now.gradients
        return self._passed(self._validation_interval, self._now.validated) or ends

    def _passed(self, interval: int, before: int) -> bool:
        """Whether the run has passed a multiple of ``interval`` since it had computed ``before`` gradients."""
        return self._now.gradients // interval > before // interval

    def _report(self) -> None:
        """Log the newest steps, unless all of them were skipped."""
        self._writer.check()
        if not self._now.losses:
            return
        loss = sum(self._now.losses) / len(self._now.losses)
        self._add(Train(**self._when, loss=finite(loss), learning_rate=self._rate))
        self._display.step(self._now.gradients, loss, self._now.gradients / self._now.seconds)
        if not self._told and self._now.gradients >= estimate.FIRST:
            self._told = True
            self._display.say(f"{self._run.title}: {estimate.of_the_rest(self._run, self._now)}")
        self._now.losses = []

    def _validate(self) -> None:
        """Score the weights that would ship now on dev, and save a checkpoint.

        Raises:
            StopRequested: a signal has come.
        """
        run, now = self._run, self._now
        with run.update.shipped_weights():
            evaluation = self._evaluated(run.dev)
            drift = run.encoder.drift()
        now.seconds = time.monotonic() - self._began
        now.judge(run.heads.metric, evaluation.average(run.heads.metric), select_best=run.recipe.select == "best")
        scores = finite_scores(evaluation.scores)
        self._add(Validate(**self._when, average=finite(now.dev), drift=finite(drift), dev=scores))
        self._display.validated(now.gradients, now.dev, run.heads.metric, drift)
        self._save_state()

    def _evaluated(self, split: Encoded) -> Evaluation:
        """The scores of the weights that the model holds; each rank predicts its share of the batches.

        Raises:
            StopRequested: a signal has come to any rank; all of them raise it.
        """
        run, ranks, evaluation = self._run, self._ranks, None
        check, dealt = self._stop.check, ranks
        if self._shares_weights:
            check, dealt = partial(launch.stop_together, ranks, self._stop), Ranks()
        with suppress(StopRequested):
            evaluation = evaluate(run.encoder, run.heads, split, run.precision, check, dealt)
        ranks.wanted = (self._stop.requested or ranks.agreed) if evaluation is None else 0
        ranks.meet()
        if evaluation is None or ranks.agreed:
            raise StopRequested(Signals(ranks.agreed))
        return evaluation

    @property
    def _shares_weights(self) -> bool:
        """Whether each rank has a part of every weight, so that all of them compute together."""
        return self._run.recipe.shard and self._ranks.size > 1

    def _probe(self) -> None:
        """Measure what the papers argue with, on the weights that would ship now."""
        now, began = self._now, time.monotonic()
        try:
            similarity, moved = self._probes.measured()
        except Diverged as error:
            self._display.say(f"no probe at {now.gradients} gradients: {error}")
            return
        now.probe_seconds += time.monotonic() - began
        now.seconds = time.monotonic() - self._began
        share = now.probe_seconds / now.seconds
        self._add(live.event(self._when, similarity, moved, probe_seconds=now.probe_seconds, share=share))
        if self._spent:
            self._display.say(f"probes of gradient similarity and drift took {share:.1%} of the time")

    def _skip(self, what: str, steps: Sequence[Sequence[Taken]]) -> None:
        """Name the batches at fault of each skipped step; stop after as many in a row as the recipe allows.

        Those of several trajectories, which are made together, are one of the row.
        """
        run, now = self._run, self._now
        faulty = [{k: FaultyBatch(**at) for batch in step for k, at in batch.items()} for step in steps]
        for batches in faulty:
            self._add(Skip(**self._when, what=what, batches=batches))
        named = (item for batches in faulty for item in batches.items())
        places = ", ".join(f"{k} (epoch {at.epoch}, batch {at.position})" for k, at in named)
        message = f"the {what} of {places} is not finite at {now.gradients} gradients"
        halved = run.loss_scale if what == "gradient" else None
        scale = "" if halved is None else f", loss scale {halved.value:g} from now on"
        self._display.say(f"{message}: step skipped{scale}")
        now.skipped_steps, now.skipped_in_a_row = now.skipped_steps + len(steps), now.skipped_in_a_row + 1
        if now.skipped_in_a_row == run.recipe.non_finite_steps:
            raise DivergedError(
                f"{message}, the last of {now.skipped_in_a_row} such steps in a row (metrics.jsonl names the batches); "
                f"{self._advice}"
            )

    def _end_early(self, stop: StopRequested) -> None:
        """Save what was learnt, as a checkpoint and, if the recipe wants one, a model, and raise ``Interrupted``."""
        recipe, holds = self._run.recipe, ""
        if self._saved_at != self._now.gradients:
            self._save_state(early=True)
        self._writer.wait()
        if recipe.save_model:  # the end would not write another one in its place
            with self._run.update.shipped_weights():
                self._save_model()
            holds = f"{self._out / 'model'} holds what was learnt, "
        self._ranks.meet()  # a launcher that sees one of them end stops the others
        raise Interrupted(
            f"stopped after {self._now.gradients} of {recipe.budget} gradients; {holds}--resume goes on from there",
            stop.signal,
        ) from stop

    def _save_state(self, *, early: bool = False) -> None:
        state = {"weights": dict(self._run.encoder.parameters()), "update": self._run.update.state_dict()}
        state = gathered(state, here=self._leads)  # over ranks all of them give their part
        if self._leads:
            self._now.peak_memory_bytes = most_memory(self._run, self._now)
            parts = run_state.taken(self._run, self._now, self._recipe, self._log.text(), **state)
            self._writer.save(parts, early=early)
        self._saved_at = self._now.gradients

    def _restore_best(self) -> None:
        """Put the state of the best validation into the run.

        Raises:
            RunError: its checkpoint is damaged.
        """
        gradients = int(self._now.best["gradients"])
        if gradients == self._now.gradients:
            return
        try:
            run_state.restore(self._run, checkpoint.load(self._checkpoints, gradients, self._run.recipe))
        except Damaged as damage:
            raise RunError(
                f"select: best: the best weights, those after {gradients} gradients, are lost: their checkpoint in "
                f"{self._checkpoints} is damaged ({damage}); train anew in another folder"
            ) from damage

    def _save_model(self, result: RunResult | None = None, split: str = "test") -> None:
        """Write ``model/`` with its cards, scores in them once there is a result; all ranks call it, rank 0 writes."""
        with self._run.encoder.gathered(here=self._leads):
            if self._leads:
                write_model(self._run, self._out, self._now.gradients, result, split)

    @property
    def _when(self) -> When:
        return {"gradients": self._now.gradients, "seconds": self._now.seconds}

    def _add(self, event: Event) -> None:
        if self._leads:
            self._log.add(event)
            self._track(event)

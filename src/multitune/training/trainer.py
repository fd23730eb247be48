"""The one training loop, and what stands around it: validating, checkpoints, faults, shipping."""

import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from multitune.data.corpus import Corpus
from multitune.errors import Interrupted, RunError
from multitune.evaluation.scoring import Evaluation, by_class, evaluate, write_predictions
from multitune.methods.base import NonFiniteError
from multitune.probes import live
from multitune.probes.gradient_similarity import Diverged, held_out, measure
from multitune.recipe import to_yaml
from multitune.results import metrics, predictions
from multitune.results.json_files import finite
from multitune.results.metrics import Back, Event, FaultyBatch, Skip, Train, Validate, When
from multitune.results.run import RunResult, Shipped, Sides, average, finite_scores
from multitune.storage.atomic import replaced
from multitune.storage.interrupt import StopRequested, StopSignal
from multitune.training import checkpoint
from multitune.training.checkpoint import Damaged, Progress, RunState
from multitune.training.checkpoint_writer import CheckpointWriter
from multitune.training.memory import peak_memory
from multitune.training.metrics_log import MetricsLog
from multitune.training.optimizer import learning_rate
from multitune.training.progress import Display
from multitune.training.run import Run
from multitune.training.tracking import tracking
from multitune.versions import versions

LOG_LINES, LONGEST_WAIT = 100, 50
"""Training lines in the metrics.jsonl of a short run; gradient computations between two lines of a long one."""
HALVINGS = 10
"""Of the learning rate, after which a run whose losses stay not finite is given up."""


class Trainer:
    """One run being trained: its progress, its log, its checkpoints."""

    def __init__(self, run: Run, out: Path, display: Display, stop: StopSignal) -> None:
        self._run, self._out, self._display, self._stop = run, out, display, stop
        self._recipe, self._checkpoints = to_yaml(run.recipe), out / "checkpoints"
        self._log = MetricsLog(out / metrics.FILE)
        self._now = Progress()
        self._best_weights: dict[str, Tensor] = {}
        self._saved_at: int | None = None
        self._held_out = held_out(run.dev_by_task, run.recipe.batch_size)
        self._probe_interval = live.interval(run.recipe, len(self._held_out))
        if run.recipe.probe_every == "auto" and self._probe_interval is None:
            display.say("no probes: one would take more than 5 % of so short a run, or there is a single language")

    def begin(self, *, resume: bool) -> None:
        """Continue from the newest good checkpoint where there is one, else begin anew.

        Raises:
            UserError: all checkpoints are damaged, or none fits the run.
        """
        begun = checkpoint.load_newest(self._checkpoints, self._recipe, self._restore) if resume else (None, [])
        state, damages = begun
        if state is None:
            self._log.restore("")
            return
        self._log.restore(state.log)
        self._saved_at = self._now.gradients
        using = "".join(f"{damage}; using the one before: " for damage in damages)
        self._display.say(f"{using}resuming at {self._now.gradients} gradients")

    def fit(self, track: str | None = None) -> None:
        """Spend the budget; ``track`` names the tracker that shows it live.

        Raises:
            Interrupted: a signal has come; what was learnt is saved.
            RunError: no space for a checkpoint, or losses that stay not finite.
        """
        self._began = time.monotonic() - self._now.seconds
        tracker = tracking(track, self._run.recipe, self._out, self._now.gradients)
        with tracker as self._track, CheckpointWriter(self._checkpoints, self._display.saved) as self._writer:
            try:
                self._spend_budget()
            except StopRequested as stop:
                self._end_early(stop)
            self._writer.wait()

    def ship(self, corpus: Corpus) -> RunResult:
        """Evaluate the weights that the recipe selects on the test split, and write all that a run leaves.

        Raises:
            Interrupted: a signal has come; the newest checkpoint has all that was learnt.
        """
        run, out = self._run, self._out
        for name, weights in (("last", self._weights()), ("best", self._best_weights)):
            with replaced(self._checkpoints / f"{name}.safetensors") as beside:
                save_file(weights, beside)
        if run.recipe.select == "best":
            run.encoder.load_weights(self._best_weights)
        self._display.say(f"evaluating {len(corpus.test)} languages")
        try:
            evaluation = evaluate(run.encoder, run.task, run.test, run.precision, self._stop.check)
        except StopRequested as stop:
            raise Interrupted("stopped in the last evaluation; --resume goes on with that", stop.signal) from stop
        if run.recipe.save_model:
            self._save_model()
        with replaced(out / predictions.FILE) as beside:
            write_predictions(beside, run.task, run.test, evaluation)
        result = self._result(corpus, evaluation)
        result.write(out)
        checkpoint.clear(self._checkpoints)
        return result

    def _spend_budget(self) -> None:
        if self._run.recipe.non_finite == "halve" and self._saved_at is None:
            self._save_state()
        reserved = False
        while True:
            if self._validation_due:  # also where a resumed run was stopped in it
                self._validate()
                self._save_state()
            if self._spent:
                return
            self._stop.check()
            before = self._now.gradients
            self._step()
            if not reserved:
                self._writer.reserve(self._state(self._best_weights or self._weights()))
                reserved = True
            self._report_and_save(before)

    def _step(self) -> None:
        run, recipe, now = self._run, self._run.recipe, self._now
        begins, began = now.gradients, time.monotonic()
        run.update.advance(now.rate * learning_rate(recipe, begins), begins / recipe.budget)
        drawn = run.update.draw((recipe.budget - begins) // run.update.cost)
        losses = (run.loss(number) for number in drawn)
        now.gradients += run.update.cost * len(drawn)
        try:
            now.losses += run.update.step(drawn, losses)
            now.steps, now.skipped = now.steps + 1, 0
        except NonFiniteError as error:
            self._skip(error)
        if self._spent:
            run.update.finish()
        now.step_seconds += time.monotonic() - began
        now.seconds = time.monotonic() - self._began

    def _report_and_save(self, before: int) -> None:
        """What is due after a step, but for the validation."""
        recipe = self._run.recipe
        if self._passed(max(1, min(LONGEST_WAIT, recipe.budget // LOG_LINES)), before) or self._spent:
            self._report()
        if self._probe_interval and (self._passed(self._probe_interval, before) or self._spent):
            self._probe()
        if recipe.checkpoint_every and self._passed(recipe.checkpoint_every, before) and not self._validation_due:
            self._save_state()
        self._writer.check()

    @property
    def _spent(self) -> bool:
        """Whether the budget is spent, but for a rest too small for a step."""
        return self._run.recipe.budget - self._now.gradients < self._run.update.smallest_step

    @property
    def _validation_due(self) -> bool:
        ends = self._spent and self._now.validated < self._now.gradients
        return self._passed(self._run.recipe.validation_interval, self._now.validated) or ends

    def _passed(self, interval: int, before: int) -> bool:
        """Whether the run has passed a multiple of ``interval`` since ``before``."""
        return self._now.gradients // interval > before // interval

    def _report(self) -> None:
        if not self._now.losses:  # all steps since the last line were skipped
            return
        loss = sum(self._now.losses) / len(self._now.losses)
        rate = self._now.rate * learning_rate(self._run.recipe, self._now.gradients)
        self._add(Train(**self._when, loss=finite(loss), learning_rate=rate))
        self._display.step(self._now.gradients, loss, self._now.gradients / self._now.seconds)
        self._now.losses = []

    def _validate(self) -> None:
        """Score the weights that would ship now on dev."""
        run, now = self._run, self._now
        with run.update.shipped_weights():
            evaluation = evaluate(run.encoder, run.task, run.dev, run.precision, self._stop.check)
            drift = run.encoder.drift()
            now.dev = evaluation.average(run.task.metric)
            if not now.best or now.dev > now.best["average"]:
                now.best = {"average": now.dev, "gradients": now.gradients, "backs": now.backs}
                self._best_weights = self._weights()
        now.validated = now.gradients
        scores = finite_scores(evaluation.scores)
        self._add(Validate(**self._when, average=finite(now.dev), drift=finite(drift), dev=scores))
        self._display.validated(now.gradients, now.dev, run.task.metric, drift)

    def _probe(self) -> None:
        """Measure what the papers argue with, on the weights that would ship now."""
        run, now, began = self._run, self._now, time.monotonic()
        try:
            with run.update.shipped_weights():
                found = measure(run.encoder, run.task, self._held_out, run.precision)
                moved = run.encoder.moved()
        except Diverged as error:
            self._display.say(f"no probe at {now.gradients} gradients: {error}")
            return
        now.probe_seconds += time.monotonic() - began
        now.seconds = time.monotonic() - self._began
        share = now.probe_seconds / now.seconds
        self._add(live.event(self._when, found, moved, probe_seconds=now.probe_seconds, share=share))
        if self._spent:
            self._display.say(f"probes of gradient similarity and drift took {share:.1%} of the time")

    def _skip(self, error: NonFiniteError) -> None:
        """Tell which batches were at fault; after so many steps in a row as the recipe allows, go back or stop."""
        run, now = self._run, self._now
        batches = {k: FaultyBatch(**at) for k, at in run.newest(error.tasks).items()}
        self._add(Skip(**self._when, what=error.what, batches=batches))
        told = ", ".join(f"{k} (epoch {at.epoch}, batch {at.position})" for k, at in batches.items())
        told = f"the {error.what} of {told} is not finite at {now.gradients} gradients"
        self._display.say(f"{told}: step skipped")
        now.skipped += 1
        if now.skipped < run.recipe.non_finite_steps:
            return
        if run.recipe.non_finite == "stop" or now.backs == HALVINGS:
            raise RunError(
                f"{told}, the last of {now.skipped} such steps in a row (metrics.jsonl names the batches): lower "
                f"learning_rate (now {now.rate * run.recipe.learning_rate:g}), or look at the data"
            )
        self._go_back()

    def _go_back(self) -> None:
        """To the newest checkpoint, with half the rate; to one further back where that one has not helped."""
        self._writer.wait()
        failed = self._now
        state = checkpoint.load_before(self._checkpoints, self._recipe, failed.stuck, self._restore)
        self._log.go_back(state.log)
        now = self._now
        now.backs, now.stuck = failed.backs + 1, failed.stuck + 1
        now.seconds, now.probe_seconds = failed.seconds, failed.probe_seconds
        self._add(Back(**self._when, failed_at=failed.gradients, rate=now.rate))
        self._display.say(f"back to {now.gradients} gradients, with {now.rate:g} of the recipe's learning rate")

    def _end_early(self, stop: StopRequested) -> None:
        if self._saved_at != self._now.gradients:
            self._save_state(early=True)
        self._writer.wait()
        with self._run.update.shipped_weights():
            self._save_model()
        raise Interrupted(
            f"stopped after {self._now.gradients} of {self._run.recipe.budget} gradients; {self._out / 'model'} holds "
            f"what was learnt, --resume goes on from there",
            stop.signal,
        ) from stop

    def _save_state(self, *, early: bool = False) -> None:
        """A checkpoint; in the midst of skipped steps only to end early: a run does not go back to a bad place."""
        if self._now.skipped == 0 or early:
            self._now.stuck = self._now.stuck if early else 0
            self._writer.save(self._state(self._best_weights), early=early)
            self._saved_at = self._now.gradients

    def _state(self, best_weights: dict[str, Tensor]) -> RunState:
        return RunState(
            progress=self._now,
            recipe=self._recipe,
            log=self._log.text(),
            weights=dict(self._run.encoder.parameters()),
            update=self._run.update.state_dict(),
            batches={language: batches.state_dict() for language, batches in self._run.batches.items()},
            best_weights=best_weights,
        )

    def _restore(self, state: RunState) -> None:
        """Take a checkpoint's state over; raises ``Damaged`` where it does not fit the run."""
        try:
            if state.best_weights:
                self._run.encoder.check_weights(state.best_weights)
            self._run.encoder.load_weights(state.weights)
            self._run.update.load_state_dict(state.update)
            for language, batches in self._run.batches.items():
                batches.load_state_dict(state.batches[language])
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise Damaged(f"it does not fit the run: {str(error).splitlines()[0]}") from error
        self._now, self._best_weights = state.progress, state.best_weights

    def _save_model(self) -> None:
        with replaced(self._out / "model") as beside:
            self._run.encoder.save(beside)

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._run.encoder.parameters()}

    @property
    def _when(self) -> When:
        return {"gradients": self._now.gradients, "seconds": self._now.seconds}

    def _add(self, event: Event) -> None:
        self._log.add(event)
        self._track(event)

    def _shipped(self) -> Shipped:
        """Which weights the recipe selects."""
        select, now = self._run.recipe.select, self._now
        if select == "best":
            return Shipped(select, gradients=int(now.best["gradients"]), dev=finite(now.best["average"]))
        return Shipped(select, gradients=now.gradients, dev=finite(now.dev))

    def _result(self, corpus: Corpus, evaluation: Evaluation) -> RunResult:
        recipe, metric, scores = self._run.recipe, self._run.task.metric, finite_scores(evaluation.scores)
        seen = {language: own for language, own in scores.items() if language in corpus.train}
        unseen = {language: own for language, own in scores.items() if language not in corpus.train}
        return RunResult(
            method=recipe.method,
            seed=recipe.seed,
            budget=recipe.budget,
            steps=self._now.steps,
            metric=metric,
            seen=seen,
            unseen=unseen,
            average=Sides(seen=average(seen, metric), unseen=average(unseen, metric)),
            drift=finite(self._run.encoder.drift()),
            seconds=time.monotonic() - self._began,
            step_seconds=self._now.step_seconds,
            peak_memory_bytes=peak_memory(),
            precision=self._run.precision,
            threads=torch.get_num_threads(),
            shipped=self._shipped(),
            dropped=dict(corpus.dropped),
            versions=versions() | self._run.task.versions(),
            skipped=dict(corpus.skipped),
            by_class=by_class(corpus, self._run.task, evaluation.statistics),
            notes=list(self._run.update.notes),
        )

"""The methods behind Hugging Face's Trainer: which weights it trains on, evaluates, selects, saves and resumes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, get_scheduler

from multitune.hf import MultitaskMixin, MultitaskTrainer
from multitune.methods import RecAdam
from tiny import Interrupt, Weights, arguments, by_language, classifier, plain, rows, same, saved, trainer, weights

OPEN: dict[str, Any] = {"inner_steps": 6, "outer_lr": 0.5}
"""Fourteen steps make two inner loops, and two steps of a third."""
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sequential_reptile": ("sequential_reptile", OPEN, {}),
    "permuted": ("sequential_reptile", {"order": "permuted", "inner_steps": 4, "inner_steps_end": 2}, {}),
    "reset": ("sequential_reptile", OPEN | {"inner_state": "reset"}, {}),
    "nesterov": ("sequential_reptile", OPEN | {"outer_optimizer": "nesterov"}, {}),
    "reptile": ("reptile", {"inner_steps": 2, "inner_steps_end": 1, "outer_lr": 0.5}, {}),
    "fish": ("fish", {}, {}),
    "lookahead": ("lookahead", OPEN, {}),
    "lookahead, drawn": ("lookahead", OPEN, {"own": {"task_column": "language"}}),
    "mixed": ("mixed", {}, {"own": {"task_column": None}}),
    "sequential": ("sequential", {}, {"gradient_accumulation_steps": 2}),
    "mtl": ("mtl", {}, {"gradient_accumulation_steps": 2}),
    "gradvac": ("gradvac", {"beta": 0.5}, {"gradient_accumulation_steps": 3}),
    "pcgrad": ("pcgrad", {}, {"gradient_accumulation_steps": 3}),
    "famo": ("famo", {}, {"gradient_accumulation_steps": 2}),
    "gradnorm": ("gradnorm", {}, {"gradient_accumulation_steps": 2}),
}


def a_trainer(folder: Path, name: str, **settings: Any) -> MultitaskTrainer:
    method, options, more = METHODS[name]
    own = {"own": {"task_column": None}} if name == "lookahead" else {}
    return trainer(folder, method, options, **(own | more | settings))


class Watch(TrainerCallback):
    """Keeps the slow weights of each step, and which weights each evaluation saw."""

    def __init__(self, watched: MultitaskTrainer) -> None:
        self._watched = watched
        self.slow: dict[int, Weights] = {}
        self.evaluated: dict[int, Weights] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        assert self._watched.two_loop is not None
        with self._watched.two_loop.slow_weights():
            self.slow[state.global_step] = weights(given["model"])

    def on_prediction_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.evaluated[state.global_step] = weights(given["model"])


def closed(folder: Path, **settings: Any) -> Weights:
    """The slow weights after the last inner loop was closed."""
    one = trainer(folder, options=OPEN, **settings)
    one.train()
    assert one.two_loop is not None
    assert (one.two_loop.inner_step, one.two_loop.outer_steps) == (0, 3)
    return weights(one.model)


def test_it_trains_as_the_equations_say(tmp_path: Path) -> None:
    """theta by AdamW on the same batches, phi <- phi + eta (theta - phi) after every K steps and at the end."""
    one = trainer(tmp_path, options=OPEN, num_train_epochs=2, max_steps=-1, weight_decay=0.1)
    loader = trainer(tmp_path, options=OPEN).get_train_dataloader()
    model = classifier().train()
    optimizer = trainer_optimizer(model, weight_decay=0.1)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=2 * len(loader))
    phi, inner = [p.detach().clone() for p in model.parameters()], 0
    for batch in [*loader, *loader]:
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        inner += 1
        if inner % 6 == 0 or inner == 2 * len(loader):
            with torch.no_grad():
                for slow, p in zip(phi, model.parameters(), strict=True):
                    slow += 0.5 * (p - slow)
                    p.copy_(slow)
    one.train()
    assert one.state.global_step == inner == 22
    for (name, p), slow in zip(weights(one.model).items(), phi, strict=True):
        torch.testing.assert_close(p, slow, msg=name)


def trainer_optimizer(model: torch.nn.Module, weight_decay: float) -> AdamW:
    decayed = Trainer(model).get_decay_parameter_names(model)
    groups = [
        {"params": [p for n, p in model.named_parameters() if (n in decayed) == decays], "weight_decay": rate}
        for decays, rate in ((True, weight_decay), (False, 0.0))
    ]
    return AdamW(groups, lr=1e-2)


@pytest.mark.parametrize("save_steps", [4, pytest.param(5, marks=pytest.mark.check)])
def test_slow_weights_are_evaluated_and_saved(tmp_path: Path, save_steps: int) -> None:
    """A save that no evaluation comes just before has them, too; so has the last one, with the last loop closed."""
    one = trainer(
        tmp_path, options=OPEN, eval_strategy="steps", eval_steps=5, save_strategy="steps", save_steps=save_steps
    )
    watch = Watch(one)
    one.add_callback(watch)
    one.train()
    for step in range(save_steps, 14, save_steps):
        assert same(saved(tmp_path / f"checkpoint-{step}"), watch.slow[step])
    assert same(watch.evaluated[5], watch.slow[5])
    assert same(watch.evaluated[10], watch.slow[10])
    last = closed(tmp_path / "seldom")
    assert same(weights(one.model), last)
    assert same(watch.evaluated[14], last)
    assert same(saved(tmp_path / "checkpoint-14"), last)
    one.save_model(str(tmp_path / "mine"))
    assert same(saved(tmp_path / "mine"), last)


def test_callbacks_find_the_slow_weights_where_they_save_or_score_the_model(tmp_path: Path) -> None:
    found: dict[str, Weights] = {}

    class Keep(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            found[f"save {state.global_step}"] = weights(given["model"])

        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            found[f"evaluate {state.global_step}"] = weights(given["model"])

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            found["end"] = weights(given["model"])

    often: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps", "save_steps": 4}
    one = trainer(tmp_path, options=OPEN, **often)
    watch = Watch(one)
    one.add_callback(watch)
    one.add_callback(Keep())
    one.train()
    last = closed(tmp_path / "seldom")
    assert same(found.pop("end"), last)
    assert found.keys() == {*(f"save {step}" for step in (4, 8, 12, 14)), *(f"evaluate {step}" for step in (5, 10, 14))}
    for event, kept in found.items():
        step = int(event.split()[1])
        assert same(kept, last if step == 14 else watch.slow[step]), event


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"save_strategy": "steps", "save_steps": 3},
        {"eval_strategy": "epoch", "save_strategy": "epoch"},
        {"eval_strategy": "steps", "eval_steps": 2},
    ],
)
@pytest.mark.check
def test_the_last_loop_is_closed_whatever_is_evaluated_and_saved(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert same(closed(tmp_path / "a"), closed(tmp_path / "b", **settings))


@pytest.mark.parametrize(
    ("eval_steps", "learning_rate"), [(4, 1e-2), pytest.param(14, 1e-2, marks=pytest.mark.check), (7, 10.0)]
)
def test_the_best_model_is_the_one_that_stays(tmp_path: Path, eval_steps: int, learning_rate: float) -> None:
    """Also where it is not the last one, and an inner loop was open then; further training goes on from it."""
    one = trainer(
        tmp_path,
        options=OPEN,
        eval_strategy="steps",
        eval_steps=eval_steps,
        save_strategy="best",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        learning_rate=learning_rate,
    )
    one.train()
    best = one.state.best_model_checkpoint
    assert best is not None
    kept = saved(Path(best))
    assert same(weights(one.model), kept)
    assert one.evaluate()["eval_loss"] == pytest.approx(one.state.best_metric)
    one.save_model(str(tmp_path / "mine"))
    assert same(saved(tmp_path / "mine"), kept)
    stand_still(one)
    one.train()
    assert same(weights(one.model), kept)


def stand_still(one: MultitaskTrainer) -> None:
    """Let the next training leave the weights as it finds them."""
    one.args.learning_rate = 0.0
    assert one.two_loop is not None
    for group in one.two_loop.param_groups:
        group["lr"] = group["initial_lr"] = 0.0


@pytest.mark.parametrize("name", ["sequential_reptile", "nesterov"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_training_begins_at_the_weights_that_were_loaded(tmp_path: Path, name: str, interrupted: bool) -> None:
    """Also where a training came before it: by hand, or from a checkpoint that has no other weights."""
    one = a_trainer(tmp_path, name, save_strategy="steps", save_steps=7, save_only_model=True)
    assert one.model is not None
    start = weights(one.model)
    if interrupted:
        one.add_callback(Interrupt(9))
        with pytest.raises(KeyboardInterrupt):
            one.train()
    else:
        one.train()
    kept = saved(tmp_path / "checkpoint-7")
    assert not same(kept, start)
    stand_still(one)
    one.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert same(weights(one.model), kept)
    one.model.load_state_dict(start, strict=False)
    one.train()
    assert same(weights(one.model), start)


@pytest.mark.parametrize("method", ["sequential_reptile", "reptile"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_inner_loops_fit_each_training(tmp_path: Path, method: str, interrupted: bool) -> None:
    """Also one after a short trial, which goes on from the weights that the trial has left."""
    whole = trainer(tmp_path / "whole", method, max_steps=300)
    whole.create_optimizer()
    assert whole.two_loop is not None
    one = trainer(tmp_path / "one", method, max_steps=4)
    if interrupted:
        one.add_callback(Interrupt(3))
        with pytest.raises(KeyboardInterrupt):
            one.train()
        assert one.two_loop is not None
        one.two_loop.close_inner_loop()
    else:
        one.train()
    tried = weights(one.model)
    one.args.max_steps = 300
    one.add_callback(Interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        one.train()
    assert one.two_loop is not None
    assert one.two_loop.loop_length == whole.two_loop.loop_length > 1
    with one.two_loop.slow_weights():
        assert same(weights(one.model), tried)


def test_a_stop_by_an_evaluation_ships_what_was_evaluated(tmp_path: Path) -> None:
    one = trainer(
        tmp_path,
        options=OPEN,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    watch = Watch(one)
    one.add_callback(watch)
    one.add_callback(EarlyStoppingCallback(1))
    one.train()
    assert one.state.global_step == 8
    assert same(weights(one.model), watch.slow[8])
    assert same(saved(tmp_path / "checkpoint-8"), watch.slow[8])


@pytest.mark.check
def test_a_stop_within_a_step_closes_the_loop(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            control.should_training_stop = state.global_step == 8

    one = trainer(tmp_path, options=OPEN)
    one.add_callback(Stop())
    one.train()
    assert one.two_loop is not None
    assert (one.two_loop.inner_step, one.two_loop.outer_steps) == (0, 2)


@pytest.mark.parametrize(
    ("method", "other"), [("sequential_reptile", "sequential"), ("lookahead", "mixed"), ("lookahead, drawn", "mixed")]
)
@pytest.mark.check
def test_with_eta_1_the_steps_are_the_trainers_own(tmp_path: Path, method: str, other: str) -> None:
    kind = method.partition(",")[0]
    column = None if method == "lookahead" else "language"
    one = trainer(tmp_path, kind, {"inner_steps": 4, "outer_lr": 1.0}, own={"task_column": column}, dropout=0.1)
    one.train()
    two = trainer(tmp_path, other, own={"task_column": column}, dropout=0.1)
    two.train()
    assert same(weights(one.model), weights(two.model))


@pytest.mark.check
def test_mixed_is_the_plain_trainer(tmp_path: Path) -> None:
    one = trainer(tmp_path, "mixed", own={"task_column": None}, dropout=0.1)
    one.train()
    two = plain(tmp_path, dropout=0.1)
    two.train()
    assert same(weights(one.model), weights(two.model))


QUICK = ("sequential_reptile", "gradvac")


@pytest.mark.parametrize(
    ("name", "evaluates"),
    [
        pytest.param(name, evaluates, marks=() if name in QUICK and not evaluates else pytest.mark.check)
        for name in METHODS
        for evaluates in (False, True)
    ],
)
def test_it_resumes_to_the_same_bits(tmp_path: Path, name: str, evaluates: bool) -> None:
    """From the middle of an inner loop and of an epoch, with dropout; after an evaluation, too."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "dropout": 0.1}
    if evaluates:
        settings |= {"eval_strategy": "steps", "eval_steps": 5}
    whole = a_trainer(tmp_path / "whole", name, **settings)
    whole.train()
    resumed = a_trainer(tmp_path / "resumed", name, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-10"))
    assert same(weights(whole.model), weights(resumed.model))
    if whole.two_loop is not None and resumed.two_loop is not None:
        assert whole.two_loop.outer_steps == resumed.two_loop.outer_steps


@pytest.mark.check
def test_gradvacs_targets_are_in_the_checkpoint(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 7}
    a_trainer(tmp_path, "gradvac", **settings).train()
    (tmp_path / "checkpoint-7" / "combiner.safetensors").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-7: has no combiner.safetensors, so it was saved by another"):
        a_trainer(tmp_path, "gradvac", **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    shutil.copy(tmp_path / "checkpoint-14" / "combiner.safetensors", tmp_path / "checkpoint-7")
    resumed = a_trainer(tmp_path / "other", "gradvac", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    whole = a_trainer(tmp_path / "whole", "gradvac", **settings)
    whole.train()
    assert not same(weights(whole.model), weights(resumed.model))


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2},
        {"activation_checkpointing": True},
        {"bf16": True},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 3},
        {"lr_scheduler_type": "cosine", "warmup_steps": 3},
        {"lr_scheduler_type": "constant", "dataloader_num_workers": 1},
        {"optim": "adafactor"},
        {"max_grad_norm": 0.0, "num_train_epochs": 1, "max_steps": -1},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["sequential_reptile", "gradvac"])
@pytest.mark.check
def test_it_goes_with_the_trainers_settings(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    one = a_trainer(tmp_path, name, **({"metric_for_best_model": "loss"} | METHODS[name][2] | settings))
    before = weights(one.model)
    assert one.train().global_step > 0
    assert not same(weights(one.model), before)
    assert all(p.isfinite().all() for p in weights(one.model).values())


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer_cls_and_kwargs": (SGD, {"lr": 0.1, "momentum": 0.9})},
        {"optimizer_cls_and_kwargs": (RecAdam, {"lr": 1e-2, "gamma": 10.0})},
        {"optimizers": "made here"},
    ],
    ids=["class", "recadam", "object"],
)
@pytest.mark.check
def test_any_optimizer_is_the_inner_one(tmp_path: Path, given: dict[str, Any]) -> None:
    model = classifier()
    if "optimizers" in given:
        given = {"optimizers": (SGD(model.parameters(), lr=0.1), None)}
    one = MultitaskTrainer(
        model, arguments(tmp_path), train_dataset=rows(), task_column="language", options=OPEN, **given
    )
    one.train()
    assert one.two_loop is not None
    kind = given["optimizer_cls_and_kwargs"][0] if "optimizer_cls_and_kwargs" in given else SGD
    assert type(one.two_loop.inner) is kind
    assert one.two_loop.outer_steps == 3


@pytest.mark.check
def test_progress_is_told_before_each_step(tmp_path: Path) -> None:
    told = []

    class Listen(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            told.append(given["optimizer"].optimizer.progress)

    one = trainer(tmp_path, options={"outer_lr": 0.1, "outer_lr_end": 0.9})
    one.add_callback(Listen())
    one.train()
    assert told == [step / 14 for step in range(14)]


def test_short_ways_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, options={"inner_steps": 14, "outer_lr": 0.1}).train()
    assert "the shipped weights go 10% of the way" in caplog.text


def test_metrics_of_languages_and_their_mean(tmp_path: Path) -> None:
    def accuracy(predicted: Any) -> dict[str, float]:
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

    one = MultitaskTrainer(
        classifier(),
        arguments(tmp_path),
        train_dataset=rows(),
        eval_dataset=by_language(rows(1)),
        task_column="language",
        compute_metrics=accuracy,
    )
    one.train()
    metrics = one.evaluate()
    for metric in ("loss", "accuracy"):
        each = [metrics[f"eval_{name}_{metric}"] for name in ("de", "fi", "sw")]
        assert metrics[f"eval_{metric}"] == pytest.approx(sum(each) / 3)
    assert "eval_runtime" not in metrics
    assert one.evaluate(by_language(rows(2)), metric_key_prefix="test")["test_loss"] > 0
    assert "eval_de_loss" not in one.evaluate(rows(2))


class OneTrial(Trainer):
    """Searches as optuna does, but for what it varies."""

    def hyperparameter_search(
        self, hp_space: Any = None, compute_objective: Any = None, *more: Any, **given: Any
    ) -> Any:
        return compute_objective(self.evaluate())


class MultitaskOneTrial(MultitaskMixin, OneTrial):
    """As the docs mix it into TRL's."""


def test_a_search_goes_by_the_means(tmp_path: Path) -> None:
    """The default objective is the sum of all scores, and would have each language's loss beside them."""

    def scores(predicted: Any) -> dict[str, Any]:
        right = (predicted.predictions.argmax(-1) == predicted.label_ids).mean()
        return {"accuracy": float(right), "by_label": {"0": 0.5}}

    held_out = by_language(rows(1))
    given: dict[str, Any] = {"eval_dataset": held_out, "task_column": "language"}
    one = MultitaskOneTrial(classifier(), arguments(tmp_path), compute_metrics=scores, **given)
    assert one.hyperparameter_search() == one.evaluate()["eval_accuracy"]
    assert (
        one.hyperparameter_search(compute_objective=lambda found: -found["eval_loss"]) == -one.evaluate()["eval_loss"]
    )
    two = MultitaskOneTrial(classifier(), arguments(tmp_path), **given)
    assert two.hyperparameter_search() == two.evaluate()["eval_loss"]


class Noting(Trainer):
    """Logs a metric without its data set's name, as TRL's trainers do."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "eval_loss" not in logs and any(key.endswith("_loss") for key in logs):
            logs["eval_share"] = len(self.state.log_history)
        super().log(logs, start_time)


class MultitaskNoting(MultitaskMixin, Noting):
    """As the docs mix it into TRL's."""


@pytest.mark.check
def test_callbacks_get_a_metric_under_its_plain_name_once_an_evaluation(tmp_path: Path) -> None:
    """Else early stopping would take each language for an evaluation."""
    came: list[dict[str, float]] = []

    class Listen(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
            came.append(dict(metrics))

    given = arguments(tmp_path)
    one = MultitaskNoting(
        classifier(), given, eval_dataset=by_language(rows(1)), task_column="language", callbacks=[Listen()]
    )
    metrics = one.evaluate()
    each = [metrics[f"eval_{name}_share"] for name in ("de", "fi", "sw")]
    assert [own["eval_share"] for own in came if "eval_share" in own] == [sum(each) / 3]
    assert len(came) == 4

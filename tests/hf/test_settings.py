"""What does not go together is said in one sentence, before the first step."""

from pathlib import Path
from typing import Any

import pytest
from accelerate import FullyShardedDataParallelPlugin
from torch.optim import SGD, Adagrad, AdamW
from torch.utils.data import DataLoader, SequentialSampler
from transformers import Trainer

from multitune.errors import UserError
from multitune.hf import MultitaskMixin, MultitaskTrainer
from multitune.hf.settings import check, check_inner, check_sharding, plan_of
from multitune.methods import SequentialReptile
from tiny import arguments, by_language, classifier, rows, same, weights


class ScheduleFree(AdamW):
    def eval(self) -> None:
        """Show the weights to evaluate."""


def made(folder: Path, **settings: Any) -> MultitaskTrainer:
    own = {"task_column", "method", "options", "sampling_exponent", "optimizer_cls_and_kwargs"}
    given: dict[str, Any] = {"task_column": "language"} | {key: settings.pop(key) for key in own & settings.keys()}
    return MultitaskTrainer(classifier(), arguments(folder, **settings), train_dataset=rows(), **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "sequental_reptile"}, r"method: unknown method.*did you mean 'sequential_reptile'"),
        ({"method": "stl"}, "method: stl is for recipes alone; a Trainer takes mixed, mtl, sequential,"),
        ({"method": "recadam"}, "recadam is for recipes alone.*RecAdam as optimizer_cls_and_kwargs goes with mtl"),
        ({"options": {"inner_step": 3}}, "options of sequential_reptile: .*'inner_step'.*did you mean 'inner_steps'"),
        ({"options": {"outer_lr": 2.0}}, "options of sequential_reptile: outer_lr: must be"),
        ({"method": "gradvac"}, "gradient_accumulation_steps: gradvac combines.*set it to 2 or more"),
        (
            {"method": "mtl", "options": {"tasks_per_step": 3}, "gradient_accumulation_steps": 2},
            "tasks_per_step=3 and gradient_accumulation_steps=2 differ",
        ),
        ({"task_column": None}, "task_column: sequential_reptile needs it"),
        ({"sampling_exponent": -1}, "sampling_exponent: must be 0 or more"),
        ({"ignore_data_skip": True}, "ignore_data_skip: batches have to go on where they were"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size: batches"),
        (
            {"train_sampling_strategy": "sequential"},
            "train_sampling_strategy: sequential orders the examples.*set it to random, or leave task_column out",
        ),
        (
            {"optim": "galore_adamw_layerwise", "optim_target_modules": ["x"]},
            "optim: galore_adamw_layerwise steps within",
        ),
    ],
)
def test_it_is_said_where_the_trainer_is_made(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task_column": "lang"}, "train_dataset has no column 'lang'; it has input_ids, labels, language"),
        ({"method": "mtl", "gradient_accumulation_steps": 4}, "4 distinct tasks a step, and column 'language' has 3"),
        ({"optimizer_cls_and_kwargs": (ScheduleFree, {})}, "ScheduleFree has weights of its own for evaluations"),
        ({"method": "torchjd:NashMTL", "gradient_accumulation_steps": 2}, "NashMTL.*all 3 must be in every step"),
    ],
)
def test_it_is_said_before_the_first_step(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    one = made(tmp_path, **settings)
    with pytest.raises(UserError, match=message):
        one.train()


class ArgumentsThird(Trainer):
    """Takes another model before the settings, as TRL's DPO does; GRPO takes rewards there."""

    def __init__(self, model: Any = None, ref_model: Any = None, args: Any = None, **kwargs: Any) -> None:
        super().__init__(model, args, **kwargs)
        self.ref_model = ref_model


@pytest.mark.parametrize("by_place", [False, True])
def test_the_settings_are_found_wherever_a_trainer_takes_them(tmp_path: Path, by_place: bool) -> None:
    own: Any = type("Own", (MultitaskMixin, ArgumentsThird), {})
    settings = arguments(tmp_path, gradient_accumulation_steps=2, max_steps=2)
    given = (classifier(), None, settings) if by_place else ()
    named = {} if by_place else {"args": settings, "model": classifier()}
    one = own(*given, train_dataset=rows(), task_column="language", method="mtl", **named)
    assert one.args is settings
    assert one.ref_model is None
    assert one.train().global_step == 2


class OwnOptimizer(MultitaskTrainer):
    """As transformers' documentation advises, without the method's."""

    def create_optimizer(self, model: Any = None) -> AdamW:
        self.optimizer = AdamW(self.model.parameters())  # type: ignore[union-attr]
        return self.optimizer


class OwnLoader(MultitaskTrainer):
    """Its batches, of all languages at once."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        data: Any = self.train_dataset
        return DataLoader(data.remove_columns("language"), batch_size=2, collate_fn=self.data_collator)


@pytest.mark.parametrize("method", ["sequential_reptile", "gradvac"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OwnOptimizer, "create_optimizer: OwnOptimizer makes its optimizer past the method; give it by"),
        (OwnLoader, "task_column: OwnLoader has its own batches"),
    ],
)
def test_a_class_that_leaves_the_method_out_is_refused(
    tmp_path: Path, kind: type[MultitaskTrainer], message: str, method: str
) -> None:
    """Else it would train without the method, or on batches that mix the languages, and not say so."""
    settings = arguments(tmp_path, gradient_accumulation_steps=2)
    with pytest.raises(UserError, match=message):
        kind(classifier(), settings, train_dataset=rows(), task_column="language", method=method).train()


def test_batches_of_ones_own_and_an_optimizer_below_the_mixin_are_taken(tmp_path: Path) -> None:
    loops = {}
    for kind in (OwnLoader, MultitaskTrainer):
        one = kind(classifier(), arguments(tmp_path, max_steps=1000), train_dataset=rows(), method="lookahead")
        one.create_optimizer()
        assert one.two_loop is not None
        loops[kind] = one.two_loop.loop_length
    assert loops[OwnLoader] == loops[MultitaskTrainer] > 1  # K fits the steps
    below: Any = type("Below", (MultitaskMixin, type("Own", (Trainer,), {"create_optimizer": _with_sgd})), {})
    two = below(classifier(), arguments(tmp_path, max_steps=2), train_dataset=rows(), task_column="language")
    two.train()
    assert type(two.two_loop.inner) is SGD


def _with_sgd(self: Any, model: Any = None) -> Any:
    if self.optimizer is None:
        self.optimizer = SGD(self.model.parameters(), lr=0.1)
    return self.optimizer


class Classic(Trainer):
    """Its methods take what the Trainer gives them, in the ways in which most scripts write them."""

    def create_optimizer(self) -> Any:  # type: ignore[override]
        return _with_sgd(self)

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def save_model(self, output_dir: str | None = None, **kwargs: Any) -> None:  # type: ignore[override]
        super().save_model(output_dir, **kwargs)


class OtherOrder(Trainer):
    """Takes its arguments in another order."""

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Any, num_items_in_batch: Any = None, return_outputs: bool = False
    ) -> Any:
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def evaluate(  # type: ignore[override]
        self, eval_dataset: Any = None, eval_examples: Any = None, ignore_keys: Any = None, metric_key_prefix: str = ""
    ) -> Any:
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)


@pytest.mark.parametrize("method", ["sequential_reptile", "gradvac"])
@pytest.mark.parametrize("kind", [Classic, OtherOrder])
def test_methods_of_a_class_below_get_what_the_trainer_gives_them(
    tmp_path: Path, kind: type[Trainer], method: str
) -> None:
    below: Any = type("Below", (MultitaskMixin, kind), {})
    one = below(
        classifier(),
        arguments(tmp_path, max_steps=2, gradient_accumulation_steps=2, save_strategy="steps", save_steps=2),
        train_dataset=rows(),
        eval_dataset=by_language(rows(1)),
        task_column="language",
        method=method,
    )
    assert one.train().global_step == 2
    assert "eval_de_loss" in one.evaluate()


class OtherOrderAbove(MultitaskTrainer):
    """As the examples of transformers evaluate question answering, whose texts come second."""

    def evaluate(  # type: ignore[override]
        self, eval_dataset: Any = None, eval_examples: Any = None, ignore_keys: Any = None, metric_key_prefix: str = ""
    ) -> Any:
        assert eval_examples is None
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)


def test_an_evaluation_of_ones_own_gets_its_arguments_by_name(tmp_path: Path) -> None:
    one = OtherOrderAbove(classifier(), arguments(tmp_path), eval_dataset=by_language(rows(1)), task_column="language")
    assert "test_de_loss" in one.evaluate(metric_key_prefix="test")


def _plain_step(self: Any, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
    """As scripts for adversarial training write it, which begin with these lines."""
    model.train()
    loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
    self.accelerator.backward(loss)
    return loss.detach()


AboveSteps: Any = type("AboveSteps", (MultitaskTrainer,), {"training_step": _plain_step})
BelowSteps: Any = type("BelowSteps", (MultitaskMixin, type("Own", (Trainer,), {"training_step": _plain_step})), {})


def test_a_training_step_that_leaves_the_method_out_is_refused(tmp_path: Path) -> None:
    """Else it would sum up the gradients that the method is to combine, and not say so."""
    trained = []
    for kind in (MultitaskTrainer, BelowSteps, AboveSteps):
        settings = arguments(tmp_path, gradient_accumulation_steps=2, max_steps=3)
        one = kind(classifier(), settings, train_dataset=rows(), task_column="language", method="gradvac")
        if kind is AboveSteps:
            start = weights(one.model)
            with pytest.raises(UserError, match="training_step: AboveSteps computes gradients past the method; call"):
                one.train()
            assert same(weights(one.model), start)
        else:
            one.train()
            trained.append(weights(one.model))
    assert same(*trained)


@pytest.mark.parametrize("kind", [AboveSteps, BelowSteps])
def test_a_training_step_of_ones_own_goes_on_with_the_fast_weights(tmp_path: Path, kind: Any) -> None:
    trained = []
    for each in (MultitaskTrainer, kind):
        one = each(
            classifier(),
            arguments(tmp_path, eval_strategy="steps", eval_steps=2, max_steps=5),
            train_dataset=rows(),
            eval_dataset=by_language(rows(1)),
            task_column="language",
            options={"inner_steps": 3, "outer_lr": 0.5},
        )
        one.train()
        trained.append(weights(one.model))
    assert same(*trained)


class Repeats(Trainer):
    """Has an order of its own, as GRPO has, in which a prompt's answers are side by side."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset)


class LoadsItself(Trainer):
    """Makes its batches itself, as the trainers of sentence-transformers do."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        data: Any = self.train_dataset
        return DataLoader(data, batch_size=2, collate_fn=self.data_collator)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Repeats, r"task_column: Own has its own order of examples \(SequentialS"),
        (LoadsItself, "Own has its own batches"),
    ],
)
def test_a_trainer_that_orders_examples_itself_is_refused_batches_of_one_task(
    tmp_path: Path, kind: type[Trainer], message: str
) -> None:
    own: Any = type("Own", (MultitaskMixin, kind), {})
    with pytest.raises(UserError, match=message):
        own(classifier(), arguments(tmp_path), train_dataset=rows(), task_column="language").train()
    data = rows().remove_columns("language")
    own(classifier(), arguments(tmp_path, max_steps=2), train_dataset=data, method="lookahead").train()


def test_a_wrapped_optimizer_is_not_wrapped_again(tmp_path: Path) -> None:
    model = classifier()
    optimizers = (SequentialReptile(AdamW(model.parameters())), None)
    one = MultitaskTrainer(
        model, arguments(tmp_path), train_dataset=rows(), task_column="language", optimizers=optimizers
    )
    with pytest.raises(UserError, match="optimizers: give the inner optimizer alone"):
        one.train()


@pytest.mark.parametrize("method", ["sequential_reptile", "lookahead", "pcgrad", "famo"])
@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ({"fsdp_version": 1}, r"fsdp: version 1 makes one .*; set fsdp_config=\{'version': 2\}"),
        ({"fsdp_version": 2, "cpu_offload": True}, "fsdp: cpu_offload was never run with a method; leave it out"),
    ],
)
def test_ways_to_divide_weights_are_refused(method: str, plugin: dict[str, Any], message: str) -> None:
    made = FullyShardedDataParallelPlugin(**plugin)
    with pytest.raises(UserError, match=message):
        check_sharding(plan_of(method, {}, 2), made)
    check_sharding(plan_of("mixed", {}, 1), made)
    check_sharding(plan_of(method, {}, 2), FullyShardedDataParallelPlugin(fsdp_version=2))


def test_xla_divides_weights_for_plain_training_alone(tmp_path: Path) -> None:
    settings = arguments(tmp_path, fsdp=True, fsdp_config={"xla": True})
    with pytest.raises(UserError, match="fsdp: xla divides weights in a way of its own, which no method knows"):
        check(plan_of("lookahead", {}, 1), settings, own_batches=True)
    check(plan_of("mixed", {}, 1), settings, own_batches=True)


@pytest.mark.parametrize("method", ["sequential_reptile", "pcgrad"])
def test_an_optimizer_with_values_of_whole_weights_is_refused_where_these_are_divided(method: str) -> None:
    optimizer, plan = Adagrad(classifier().parameters()), plan_of(method, {}, 2)
    with pytest.raises(UserError, match="optimizer: Adagrad has values of whole weights before its first step"):
        check_inner(plan, optimizer, sharded=True)
    check_inner(plan, optimizer, sharded=False)

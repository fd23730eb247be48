"""Which methods have a place in a Trainer, and which of its settings go with them."""

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from multitune.errors import UserError
from multitune.methods.two_loop import TwoLoop
from multitune.mistakes import describe
from multitune.plans import METHODS, Plan, find
from multitune.plans.combined import SeveralTasks
from multitune.plans.plain import MixedPlan, PlainPlan, SequentialPlan
from multitune.plans.regularised import RecAdamPlan, SWEPPlan
from multitune.plans.two_loop import ManyWalks, TwoLoopPlan

if TYPE_CHECKING:
    from accelerate import FullyShardedDataParallelPlugin
    from transformers import TrainingArguments

FITTING = (MixedPlan, SequentialPlan, TwoLoopPlan, SeveralTasks)
OTHERS_OPTIMIZER = (RecAdamPlan, SWEPPlan)
"""Methods with an optimizer or a loss of their own in the place of the Trainer's."""


def plan_of(method: str, options: Mapping[str, Any], accumulation: int) -> Plan:
    """A method with its options, as recipes have both.

    Args:
        method: its name.
        options: its options.
        accumulation: micro-batches of a step.

    Raises:
        UserError: an unknown method or option, a value that is not allowed, or a method that no Trainer can follow.
    """
    kind = find(method)
    if not issubclass(kind, FITTING) or issubclass(kind, OTHERS_OPTIMIZER):
        fitting = [name for name, each in METHODS.items() if issubclass(each, FITTING) and each not in OTHERS_OPTIMIZER]
        more = "; RecAdam as optimizer_cls_and_kwargs goes with mtl" if issubclass(kind, RecAdamPlan) else ""
        raise UserError(f"method: {method} is for recipes alone; a Trainer takes {', '.join(fitting)}{more}")
    given = dict(options)
    if issubclass(kind, SeveralTasks):
        given |= _tasks_per_step(method, given, accumulation)
    try:
        plan = kind.model_validate(given)
    except ValidationError as error:
        raise UserError(f"options of {method}: {describe(error, kind)}") from error
    plan.check()
    if isinstance(plan, ManyWalks) and plan.trajectories > 1:
        raise UserError(f"options of {method}: trajectories: a Trainer walks one; several are for recipes")
    return plan


def _tasks_per_step(method: str, options: Mapping[str, Any], accumulation: int) -> dict[str, int]:
    if options.get("tasks_per_step", accumulation) != accumulation:
        raise UserError(
            f"options of {method}: tasks_per_step={options['tasks_per_step']} and gradient_accumulation_steps="
            f"{accumulation} differ: a micro-batch is one task's; leave tasks_per_step out"
        )
    if accumulation < 2:
        raise UserError(
            f"gradient_accumulation_steps: {method} combines the gradients of several tasks, one of each micro-batch; "
            f"set it to 2 or more, at most the number of tasks"
        )
    return {"tasks_per_step": accumulation}


def check(plan: Plan, arguments: "TrainingArguments", *, own_batches: bool) -> None:
    """Find settings of the Trainer that do not go with a method.

    Args:
        plan: the method.
        arguments: the Trainer's.
        own_batches: whether multitune decides which example comes when.

    Raises:
        UserError: one does not.
    """
    if isinstance(plan, MixedPlan) and not own_batches:
        return
    for name in ("ignore_data_skip", "auto_find_batch_size"):
        if getattr(arguments, name):
            raise UserError(f"{name}: batches have to go on where they were, at their size; leave it out")
    if arguments.deepspeed:
        raise UserError("deepspeed: its engine steps by itself, past any other optimizer; use DistributedDataParallel")
    fsdp: Any = arguments.fsdp_config
    if arguments.fsdp and fsdp["xla"] and not isinstance(plan, PlainPlan):
        raise UserError("fsdp: xla divides weights in a way of its own, which no method knows; leave it out")
    if own_batches and arguments.train_sampling_strategy != "random":
        raise UserError(
            f"train_sampling_strategy: {arguments.train_sampling_strategy} orders the examples, and so do task_column "
            f"and sampling; set it to random, or leave task_column out, with the method lookahead or mixed"
        )
    optim = str(getattr(arguments.optim, "value", arguments.optim))
    if not isinstance(plan, PlainPlan) and ("layerwise" in optim or "lomo" in optim):
        raise UserError(f"optim: {optim} steps within the backward pass; choose one that steps after it: adamw_torch")


def check_sharding(plan: Plan, plugin: "FullyShardedDataParallelPlugin | None") -> None:
    """Find ways of dividing the weights over ranks that a method cannot follow.

    Args:
        plan: the method.
        plugin: accelerate's, from the Trainer's ``fsdp`` or from ``accelerate launch``; None: weights stay whole.

    Raises:
        UserError: FSDP's first version, or weights that wait on the CPU.
    """
    if plugin is None or isinstance(plan, PlainPlan):
        return
    if plugin.fsdp_version == 1:
        raise UserError(
            "fsdp: version 1 makes one long parameter of many, which a method cannot tell apart; set "
            "fsdp_config={'version': 2}"
        )
    from torch.distributed.fsdp import CPUOffloadPolicy

    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise UserError("fsdp: cpu_offload was never run with a method; leave it out, or use a recipe with shard: true")


def check_inner(plan: Plan, optimizer: Optimizer, *, sharded: bool) -> None:
    """Find an optimizer that a method cannot use, or that slow weights cannot be put around.

    Args:
        plan: the method.
        optimizer: the Trainer's, or its user's.
        sharded: whether accelerate will divide the weights over ranks.

    Raises:
        UserError: it has state of whole weights that are to be divided; or slow weights are to be put around it, and it
            has some itself, or two sets of weights (schedule-free ones).
    """
    if sharded and optimizer.state:
        raise UserError(
            f"optimizer: {type(optimizer).__name__} has values of whole weights before its first step, and fsdp "
            f"divides the weights after that; give one that has not, such as AdamW"
        )
    if not isinstance(plan, TwoLoopPlan):
        return
    if isinstance(optimizer, TwoLoop):
        raise UserError("optimizers: give the inner optimizer alone; method says what is put around it")
    if hasattr(optimizer, "eval"):
        raise UserError(
            f"optimizer: {type(optimizer).__name__} has weights of its own for evaluations, and so has the method; "
            f"give one that has not, such as AdamW"
        )


def has_its_own(trainer: object, what: str) -> UserError:
    """What to say of a Trainer that decides itself which example comes when, as GRPO repeats each prompt in a batch."""
    return UserError(
        f"task_column: {type(trainer).__name__} has its own {what}, which batches of one task would undo; leave it "
        f"out, with the method lookahead or mixed"
    )


def leaves_out_method(trainer: object) -> UserError:
    """What to say of a class that has replaced ``create_optimizer``, as transformers' documentation advises."""
    name = type(trainer).__name__
    return UserError(
        f"create_optimizer: {name} makes its optimizer past the method; give it by optimizer_cls_and_kwargs or "
        f"optimizers, or put the mixin below: class {name}(MultitaskMixin, ...) around a Trainer that makes it"
    )


def leaves_out_rows(trainer: object) -> UserError:
    """What to say of a class that has replaced ``training_step``, as scripts for adversarial training do."""
    name = type(trainer).__name__
    return UserError(
        f"training_step: {name} computes gradients past the method; call super().training_step in it, or put the "
        f"mixin below: class {name}(MultitaskMixin, ...) around a Trainer that has it"
    )


def thawed_too_late(combined: Set[Tensor], model: nn.Module) -> UserError:
    """What to say of a callback that has thawed weights whose gradients have no place among those to combine."""
    late = next(name for name, weight in model.named_parameters() if weight.grad is not None and weight not in combined)
    return UserError(
        f"requires_grad: {late} trains, and did not when training began, so the method would leave it out; freeze "
        f"weights that are to train later in on_epoch_begin or on_step_begin, not before"
    )

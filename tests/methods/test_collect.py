"""Combiner in loops that call backward() themselves: collect and apply, with what else such loops have."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multitune.methods.base import CombiningMethod, GramMethod, NonFiniteError, RowsMethod
from multitune.methods.combiner import Combiner
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from multitune.methods.torchjd import torchjd
from networks import METHODS, TASKS, Net, autograd_rows, batches, losses

pytest.importorskip("torchjd")
ALL: dict[str, Callable[[], CombiningMethod]] = METHODS | {
    "UPGrad": lambda: torchjd("UPGrad"),
    "TrimmedMean": lambda: torchjd("TrimmedMean", trim_number=1),
}
"""And one method of each kind of TorchJD's: of the Gram matrix, and of the gradients themselves."""


def make(net: Net, name: str, **options: Any) -> Combiner:
    return Combiner(net.shared(), ALL[name](), heads=net.heads.parameters(), **options)


def collected(net: Net, combiner: Combiner, step: int = 0, tasks: Iterable[int] = range(TASKS)) -> list[int]:
    """A step without zero_grad() before it."""
    for task, loss in zip(tasks, losses(net, step, tasks), strict=True):
        loss.backward()
        combiner.collect(task, loss)
        assert all(weight.grad is None for weight in net.parameters())
    return combiner.apply()


def gradients(net: Net) -> list[Tensor | None]:
    return [None if weight.grad is None else weight.grad.clone() for weight in net.parameters()]


def assert_same(actual: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)


def unchanged(combiner: Combiner, before: dict[str, Tensor]) -> bool:
    return all(
        torch.equal(value.nan_to_num(), before[key].nan_to_num()) for key, value in method_state(combiner).items()
    )


def method_state(combiner: Combiner) -> dict[str, Tensor]:
    return copy.deepcopy({key: value for key, value in combiner.state_dict().items() if key != "reached"})


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_collect_and_apply_are_backward(name: str, reduction: str, set_to_none: bool) -> None:
    """Also where rows are added in the first step, tasks change from step to step, and no zero_grad frees `.grad`."""
    nets = Net(), Net()
    long, short = (make(net, name, groups="all_layer", reduction=reduction) for net in nets)
    for step, tasks in enumerate([[1], [0, 1, 2], [2, 0], [2, 1, 0]]):
        if name == "TrimmedMean" and len(tasks) < 3:
            continue
        for net in nets:
            net.zero_grad(set_to_none=set_to_none)
        assert collected(nets[0], long, step, tasks) == []
        short.backward(losses(nets[1], step, tasks), tasks=tasks)
        assert_same(gradients(nets[0]), gradients(nets[1]))
    for key, value in long.state_dict().items():
        torch.testing.assert_close(value, short.state_dict()[key], equal_nan=True)


@pytest.mark.parametrize("name", ALL)
def test_memory_of_collecting_is_a_row_a_task(name: str) -> None:
    net = Net()
    combiner = make(net, name)
    for step in range(2):
        net.zero_grad()
        collected(net, combiner, step)
    sizes = {weight.grad.untyped_storage().nbytes() for _, weight in net.shared() if weight.grad is not None}
    assert sizes == {(1 if name == "Joint" else TASKS + 1) * combiner.layout.width * 8}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("order", [[0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2], [0, 1, 0, 2, 2, 1]])
def test_micro_batches_add_up_in_any_order(name: str, order: list[int]) -> None:
    net = Net()
    halves, combiner = [iter(batch.chunk(2)) for batch in batches()], make(net, name)
    for task in order:
        loss = net.loss(task, next(halves[task])) / 2
        loss.backward()
        combiner.collect(task, loss)
    combiner.apply()
    whole = Net()
    make(whole, name).backward(losses(whole), tasks=range(TASKS))
    assert_same(gradients(net), gradients(whole))


@pytest.mark.parametrize("name", ALL)
def test_what_else_is_in_grad_is_added(name: str) -> None:
    """A regulariser's gradient after the last collect, on heads and on what no task reaches, too."""
    net = Net()
    expected = Net()
    make(expected, name).backward(losses(expected), tasks=range(TASKS))
    combiner = make(net, name)
    for task, loss in enumerate(losses(net)):
        loss.backward()
        combiner.collect(task, loss)
    torch.stack([weight.square().sum() for weight in net.parameters()]).sum().backward()
    combiner.apply()
    for weight, other in zip(net.parameters(), expected.parameters(), strict=True):
        combined = torch.zeros_like(other) if other.grad is None else other.grad
        torch.testing.assert_close(weight.grad, combined + 2 * weight.detach())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_non_finite_task_is_written_through_and_changes_no_state(name: str, what: str) -> None:
    net = Net()
    combiner = make(net, name, reduction="mean")
    collected(net, combiner)
    before = method_state(combiner)
    net.zero_grad()
    for task, loss in enumerate(losses(net, 1)):
        loss.backward()
        value = loss.detach()
        if task == 1 and what == "gradient":
            assert net.sometimes.weight.grad is not None
            net.sometimes.weight.grad[0, 0] = torch.inf
        combiner.collect(task, value * torch.inf if task == 1 and what == "loss" else value)
    assert combiner.apply() == [1]
    total = sum(gradient.sum() for gradient in gradients(net) if gradient is not None)
    assert not torch.as_tensor(total).isfinite()
    assert unchanged(combiner, before)
    net.zero_grad()
    assert collected(net, combiner, 2) == []
    other = Net()
    again = make(other, name, reduction="mean")
    again.load_state_dict(combiner.state_dict() | before)
    again.backward(losses(other, 2), tasks=range(TASKS))
    assert_same(gradients(net), gradients(other))


@pytest.mark.parametrize("name", ALL)
def test_a_grad_scaler_changes_nothing_and_skips_an_overflow(name: str) -> None:
    """Scales are powers of two, so that even the bits are the same."""
    nets = Net(torch.float32), Net(torch.float32)
    combiners = [make(net, name) for net in nets]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=0.01) for net in nets]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for step in range(5):
        optimizers[0].zero_grad()
        for task, loss in enumerate(losses(nets[0], step)):
            overflow = torch.inf if (step, task) == (2, 1) else 1.0
            scaler.scale(loss * overflow).backward()
            combiners[0].collect(task, loss)
        bad = combiners[0].apply(loss_scale=scaler.get_scale())
        assert bad == ([1] if step == 2 else [])
        scaler.step(optimizers[0])
        scaler.update()
        if step != 2:
            optimizers[1].zero_grad()
            collected(nets[1], combiners[1], step)
            optimizers[1].step()
    assert scaler.get_scale() == 2.0**15
    for ours, plain in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("name", ALL)
def test_autocast_around_a_step_changes_nothing_but_the_forward_passes(name: str) -> None:
    def loss(net: Net, task: int) -> Tensor:
        with torch.autocast("cpu"):
            return net.loss(task, batches(0, torch.float32)[task])

    found = []
    for around in (False, True):
        for form in (1, 2):
            net = Net(torch.float32)
            combiner = make(net, name)
            with torch.autocast("cpu", enabled=around):
                if form == 1:
                    combiner.backward([lambda t=t, net=net: loss(net, t) for t in range(TASKS)])  # type: ignore[misc]
                else:
                    for task in range(TASKS):
                        value = loss(net, task)
                        with torch.autocast("cpu", enabled=False):
                            value.backward()
                        combiner.collect(task, value)
                    combiner.apply()
            found.append(gradients(net))
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("form", ["list", "tensor", "functions", "micro-batches"])
def test_losses_may_share_a_forward_pass(name: str, form: str) -> None:
    net, apart = Net(), Net()
    batch = batches()[0]

    def on_one_pass() -> list[Tensor]:
        hidden = net.encoder(batch)
        return [(net.heads[task](hidden) - task).square().mean() for task in range(TASKS)]

    given = on_one_pass()
    forms: dict[str, Any] = {
        "list": given,
        "tensor": torch.stack(given),
        "functions": [lambda task=task: on_one_pass()[task] for task in range(TASKS)],
        "micro-batches": [[loss / 2, loss / 2] for loss in given],
    }
    make(net, name).backward(forms[form], tasks=range(TASKS))
    own_passes = ((apart.heads[task](apart.encoder(batch)) - task).square().mean() for task in range(TASKS))
    make(apart, name).backward(own_passes, tasks=range(TASKS))
    assert_same(gradients(net), gradients(apart))
    if form != "functions":  # the graph is not kept longer than needed
        with pytest.raises(RuntimeError, match="second time"):
            given[-1].backward()


def test_a_forward_pass_that_is_used_up_is_named() -> None:
    net = Net()
    hidden = net.encoder(batches()[0])
    lazily = (net.heads[task](hidden).sum() for task in range(TASKS))
    with pytest.raises(
        ValueError, match=r"task 1 needs a forward pass that an earlier loss has used up: give .* as a list"
    ):
        Combiner(net.shared(), PCGrad()).backward(lazily, tasks=range(TASKS))
    assert all(weight.grad is None for _, weight in net.shared())


SCALES = [0.5, 2.0, 3.0]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("form", ["backward", "collect"])
def test_scales_are_factors_of_the_losses(name: str, form: str) -> None:
    """GradNorm and FAMO do not see them, and weigh with them; all others combine the gradients s_i g_i."""
    net = Net()
    combiner, reference = make(net, name), ALL[name]()
    for step in range(3):
        net.zero_grad()
        if form == "backward":
            values = combiner.backward(losses(net, step), tasks=range(TASKS), scales=SCALES)
            torch.testing.assert_close(values, torch.stack(list(losses(net, step))).detach())
        else:
            for task, loss in enumerate(losses(net, step)):
                loss.backward()
                combiner.collect(task, loss, scale=SCALES[task])
            combiner.apply()
        rows, scales = autograd_rows(net, step), torch.tensor(SCALES).double()
        matrix = torch.cat([rows[key] for key, _ in net.shared()], 1)
        seen = matrix if name in ("GradNorm", "FAMO") else scales[:, None] * matrix
        own_weight = 1.0
        if isinstance(reference, RowsMethod):
            expected = reference.combine(seen)
        else:
            assert isinstance(reference, GramMethod)
            weights = reference.weights(seen @ seen.T, losses=[float(loss.detach()) for loss in losses(net, step)])
            expected = (weights * scales) @ matrix
            own_weight = float(weights[2]) if name in ("GradNorm", "FAMO") else 1.0
        found = [torch.zeros_like(p) if p.grad is None else p.grad for _, p in net.shared()]
        torch.testing.assert_close(torch.cat([gradient.flatten() for gradient in found]), expected)
        head = net.weight("heads.2.weight").grad
        assert head is not None
        torch.testing.assert_close(head.flatten(), own_weight * 3.0 * rows["heads.2.weight"][2])


def test_sparse_gradients_are_collected() -> None:
    dense, sparse = (nn.Embedding(10, 4, sparse=is_sparse) for is_sparse in (False, True))
    sparse.load_state_dict(dense.state_dict())
    for embedding in (dense, sparse):
        combiner = Combiner(embedding.parameters(), PCGrad())
        for task, ids in enumerate([[1, 1, 2], [2, 3]]):
            (embedding(torch.tensor(ids)).sum() * (1 - 2 * task)).backward()
            combiner.collect(task)
        combiner.apply()
    torch.testing.assert_close(sparse.weight.grad, dense.weight.grad)


def scalar(net: Net, task: int = 0) -> Tensor:
    loss = net.loss(task, batches()[task])
    loss.backward()
    return loss


def one(net: Net, method: CombiningMethod, *arguments: Any, **options: Any) -> Combiner:
    """A combiner that has collected once."""
    combiner = Combiner(net.shared(), method)
    scalar(net)
    combiner.collect(*arguments, **options)
    return combiner


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: Combiner(n.shared(), PCGrad()).apply(), "nothing to apply"),
        (lambda n: Combiner(n.shared(), PCGrad()).collect(0), r"no parameter has a gradient: collect\(0\) comes after"),
        (lambda n: one(n, FAMO(TASKS), 0), r"FAMO needs the loss before any scaling: collect\(task, loss\)"),
        (lambda n: one(n, GradNorm(TASKS), 0), "GradNorm needs the loss"),
        (lambda n: one(n, GradVac(TASKS), 3), "tasks must be from 0 to 3 - 1"),
        (lambda n: one(n, PCGrad(), -1), "tasks must be from 0"),
        (lambda n: one(n, PCGrad(), 0, torch.ones(2)), r"loss of task 0 must be a scalar; got \[2\]"),
        (lambda n: one(n, PCGrad(), 0, scale=0.0), r"scales must be 1 positive numbers"),
        (lambda n: one(n, PCGrad(), 0, scale=float("nan")), "scales must be 1 positive"),
        (lambda n: one(n, PCGrad(), 0).apply(loss_scale=0.0), "must be 1 positive"),
        (lambda n: one(n, PCGrad(), 0).backward([scalar(n)]), "comes before backward"),
        (lambda n: Combiner(n.shared(), PCGrad()).backward([scalar(n)], scales=[1.0, 2.0]), "scales must be 1"),
        (lambda n: one(n, FAMO(TASKS), 0, -1.0).apply(), r"tasks \[0\] are not above their minimum"),
    ],
)
def test_mistakes_are_named(call: Callable[[Net], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(Net())


def test_one_scale_a_task_and_step() -> None:
    net = Net()
    combiner = one(net, Joint(), 0, scale=2.0)
    scalar(net)
    with pytest.raises(ValueError, match=r"task 0 has the scales 2.0 and 1.0 in one step"):
        combiner.collect(0)
    assert net.encoder[0].weight.grad is not None, "it was not taken"


@pytest.mark.parametrize("name", ["FAMO", "PCGrad"])
def test_an_error_leaves_grad_as_it_was(name: str) -> None:
    net = Net()
    combiner = make(net, name)
    torch.stack([weight.square().sum() for weight in net.parameters()]).sum().backward()
    before = gradients(net)
    with pytest.raises(NonFiniteError):
        combiner.backward((loss * torch.nan for loss in losses(net)), tasks=range(TASKS))
    assert_same(gradients(net), before)

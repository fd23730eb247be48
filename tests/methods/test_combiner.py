"""The combine engine: rows, groups, heads, accumulation, and what is left in `.grad`."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multitune.methods.base import NonFiniteError, RowsMethod
from multitune.methods.combiner import Combiner
from multitune.methods.gradvac import GradVac
from multitune.methods.groups import GROUPS
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from networks import METHODS, TASKS, Net, autograd_rows, batches, losses


@pytest.mark.parametrize("groups", ["whole_model", "enc_dec", "all_layer", "all_matrix", lambda name: name[-4:]])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradvac_combines_what_autograd_finds(groups: str | Callable[[str], str], reduction: Any) -> None:
    net = Net()
    group_name = GROUPS[groups] if isinstance(groups, str) else groups
    combiner = Combiner(
        net.shared(), GradVac(TASKS, 0.3, 5), groups=groups, heads=net.heads.parameters(), reduction=reduction
    )
    method = GradVac(TASKS, beta=0.3, seed=5)
    method.for_groups(len(combiner.layout.groups))
    for step in range(3):
        net.zero_grad()
        values = combiner.backward(losses(net, step))
        torch.testing.assert_close(values, torch.stack(list(losses(net, step))).detach())
        rows = autograd_rows(net, step)
        by_group = {
            group: torch.cat([rows[name] for name, _ in net.shared() if group_name(name) == group], 1)
            for group in combiner.layout.groups
        }
        weights = method.weights(torch.stack([matrix @ matrix.T for matrix in by_group.values()]))
        weight_of = dict(zip(by_group, weights, strict=True))
        for name, parameter in net.named_parameters():
            if name.startswith("never"):
                assert parameter.grad is None
                continue
            weight = torch.ones(TASKS).double() if name.startswith("heads") else weight_of[group_name(name)]
            expected = weight @ rows[name] / (TASKS if reduction == "mean" else 1)
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad.flatten(), expected)
    torch.testing.assert_close(dict(combiner.method.state_dict()), dict(method.state_dict()))


class FirstRow(RowsMethod):
    """The first task's gradient, and which groups were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, tuple[int, ...]]] = []

    def combine(self, rows: Tensor, group: int = 0) -> Tensor:
        self.asked.append((group, tuple(rows.shape)))
        return rows[0]


def test_methods_of_rows_get_each_groups_columns_without_padding() -> None:
    net, method = Net(), FirstRow()
    weights = list(net.encoder.named_parameters())
    combiner = Combiner(weights, method, groups="all_layer", reduction="mean")
    combiner.backward(losses(net), tasks=range(TASKS))
    assert method.asked == [(0, (TASKS, 6 * 50 + 50)), (1, (TASKS, 50 * 50 + 50))]
    rows = autograd_rows(net)
    for name, parameter in weights:
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.flatten(), rows[f"encoder.{name}"][0] / TASKS)


@pytest.mark.parametrize("name", METHODS)
def test_memory_is_what_the_method_needs(name: str) -> None:
    """Gradient vectors kept: one for Joint, two where weights come with the losses, else the rows and one more."""
    vectors = {"Joint": 1, "FAMO": 2, "GradNorm": 2}.get(name, TASKS + 1)
    net = Net()
    combiner = Combiner(net.shared(), METHODS[name](), heads=net.heads.parameters())
    combiner.backward(losses(net), tasks=range(TASKS))
    storages = {
        weight.grad.untyped_storage().data_ptr(): weight.grad.untyped_storage().nbytes()
        for _, weight in net.shared()
        if weight.grad is not None
    }
    assert list(storages.values()) == [vectors * combiner.layout.width * 8]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("last_shared", [False, True])
def test_every_method_on_a_network_is_its_weights_on_autograds_rows(name: str, last_shared: bool) -> None:
    net, make = Net(), METHODS[name]
    measured = ["encoder.2.weight"] if last_shared and name == "GradNorm" else [n for n, _ in net.shared()]
    layer = [net.weight("encoder.2.weight")] if last_shared else None
    combiner, method = Combiner(net.shared(), make(), heads=net.heads.parameters(), last_shared=layer), make()
    for step in range(4):
        net.zero_grad()
        values = combiner.backward(losses(net, step), tasks=range(TASKS))
        rows = autograd_rows(net, step)
        matrix = torch.cat([rows[name] for name in measured], 1)
        weights = method.weights(matrix @ matrix.T, losses=values)  # type: ignore[operator]
        minimises_weighted_losses = name in ("Joint", "FAMO", "GradNorm")
        for key, parameter in net.named_parameters():
            if parameter.grad is not None:
                plain = key.startswith("heads") and not minimises_weighted_losses
                expected = rows[key].sum(0) if plain else weights @ rows[key]
                torch.testing.assert_close(parameter.grad.flatten(), expected)


def test_joint_is_plain_training_bitwise() -> None:
    ours, plain = Net(torch.float32), Net(torch.float32)
    ours_optimizer, plain_optimizer = (torch.optim.AdamW(net.parameters(), lr=0.01) for net in (ours, plain))
    combiner = Combiner(ours.parameters(), Joint())
    for step in range(5):
        ours_optimizer.zero_grad()
        combiner.backward(losses(ours, step), tasks=range(TASKS))
        plain_optimizer.zero_grad()
        for loss in losses(plain, step):
            loss.backward()
        ours_optimizer.step()
        plain_optimizer.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", METHODS)
def test_accumulation_functions_and_single_losses_agree(name: str) -> None:
    def whole(net: Net) -> Iterable[Any]:
        return losses(net)

    def halves(net: Net) -> Iterable[Any]:
        def micro_batches(task: int) -> Iterator[Tensor]:
            return (net.loss(task, half) / 2 for half in batches()[task].chunk(2))

        return map(micro_batches, range(TASKS))

    def functions(net: Net) -> Iterable[Any]:
        return [lambda t=t: net.loss(t, batches()[t]) for t in range(TASKS)]

    found = []
    for variant in (whole, halves, functions):
        net = Net()
        combiner = Combiner(net.shared(), METHODS[name](), heads=net.heads.parameters())
        for _ in range(2):
            net.zero_grad()
            values = combiner.backward(variant(net), tasks=range(TASKS))
        found.append([values, *(p.grad for p in net.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("name", METHODS)
def test_one_graph_lives_at_a_time(name: str) -> None:
    net, events = Net(), []

    def watched() -> Iterator[Tensor]:
        for task in range(TASKS):
            loss = net.loss(task, batches()[task])
            loss.register_hook(lambda gradient, task=task: events.append(f"backward {task}"))
            events.append(f"forward {task}")
            yield loss

    Combiner(net.parameters(), METHODS[name]()).backward(watched(), tasks=range(TASKS))
    assert events == [f"{what} {task}" for task in range(TASKS) for what in ("forward", "backward")]


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("name", METHODS)
def test_a_head_whose_gradient_alone_is_not_finite_is_its_tasks_fault(name: str, bad: float) -> None:
    """The loss is finite, and so is all that the tasks share."""
    net = Net()
    combiner = Combiner(net.shared(), METHODS[name](), heads=net.heads.parameters())
    combiner.backward(losses(net, 0), tasks=range(TASKS))
    before = copy.deepcopy(combiner.state_dict())
    left = [copy.deepcopy(parameter.grad) for parameter in net.parameters()]
    weight = net.weight("heads.1.weight")
    spoilt = torch.zeros_like(weight)
    spoilt[1, 3] = bad
    weight.register_hook(lambda gradient: gradient + spoilt)
    with pytest.raises(NonFiniteError, match="gradient") as error:
        combiner.backward(losses(net, 1), tasks=range(TASKS))
    assert error.value.tasks == [1]
    assert {name: tensor.tolist() for name, tensor in combiner.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in before.items()
    }
    for parameter, own in zip(net.parameters(), left, strict=True):
        torch.testing.assert_close(parameter.grad, own, rtol=0, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_both_forms_of_zero_grad_leave_the_same(name: str) -> None:
    ends = []
    for set_to_none in (True, False):
        net = Net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        combiner = Combiner(net.shared(), METHODS[name](), heads=net.heads.parameters())
        for step in range(4):
            optimizer.zero_grad(set_to_none=set_to_none)
            combiner.backward(losses(net, step), tasks=range(TASKS))
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", METHODS)
def test_backward_adds_to_what_is_in_grad(name: str) -> None:
    """A regulariser's gradient before it, and its own of the step before."""

    def gradients(net: Net) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]

    net, method = Net(), METHODS[name]()
    combiner = Combiner(net.shared(), method, heads=net.heads.parameters())
    parts = []
    state = copy.deepcopy(combiner.state_dict())
    for step in range(2):
        net.zero_grad()
        combiner.backward(losses(net, step), tasks=range(TASKS))
        parts.append(gradients(net))
    net.zero_grad()
    combiner.load_state_dict(state)
    sum(weight.square().sum() for weight in net.parameters()).backward()  # type: ignore[union-attr]
    parts.append(gradients(net))
    for step in range(2):
        combiner.backward(losses(net, step), tasks=range(TASKS))
    for total, *each in zip(gradients(net), *parts, strict=True):
        torch.testing.assert_close(total, sum(each))


@pytest.mark.parametrize("name", METHODS)
def test_a_state_is_of_no_half_step(name: str) -> None:
    """What was collected before it was loaded, as of a step that broke off, has no part in the next one."""
    found = []
    for breaks_off in (False, True):
        net, method = Net(), METHODS[name]()
        combiner = Combiner(net.shared(), method, heads=net.heads.parameters())
        state = copy.deepcopy(combiner.state_dict())
        if breaks_off:
            first = next(iter(losses(net, 1)))
            first.backward()
            combiner.collect(0, first)
            combiner.load_state_dict(state)
        for task, loss in enumerate(losses(net, 0)):
            loss.backward()
            combiner.collect(task, loss)
        combiner.apply()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_new_combiner_takes_over_what_an_earlier_one_left() -> None:
    """Else `.grad` would keep the earlier one's whole buffer in memory. What came from elsewhere stays."""
    net = Net()
    Combiner(net.shared(), PCGrad()).backward(losses(net), tasks=range(TASKS))
    net.weight("encoder.0.bias").grad = torch.ones(50).double()
    Combiner(net.shared(), Joint())
    assert {name for name, weight in net.shared() if weight.grad is not None} == {"encoder.0.bias"}


def test_rows_of_an_earlier_step_leave_nothing_behind() -> None:
    """Fewer tasks than before, other ones, and a parameter that they do not reach: zeros, not old gradients."""
    net = Net()
    combiner = Combiner(net.shared(), PCGrad(), heads=net.heads.parameters())
    combiner.backward(losses(net), tasks=range(TASKS))
    net.zero_grad()
    combiner.backward(losses(net, 1, tasks=[2]), tasks=[2])
    rows = autograd_rows(net, 1)
    for name, parameter in net.shared():
        if name.startswith("never"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad.flatten(), rows[name][2])
    assert not net.sometimes.weight.grad.any()  # type: ignore[union-attr]
    assert net.heads[0].weight.grad is None
    assert net.heads[2].weight.grad is not None


def test_frozen_parameters_have_no_columns() -> None:
    net = Net()
    net.encoder[0].requires_grad_(False)
    combiner = Combiner(net.shared(), PCGrad(), heads=net.heads.parameters())
    assert sum(combiner.layout.sizes) == sum(p.numel() for n, p in net.shared() if not n.startswith("encoder.0"))
    combiner.backward(losses(net), tasks=range(TASKS))
    assert net.encoder[0].weight.grad is None
    net.encoder[2].requires_grad_(False)  # frozen later: no gradient any more
    combiner.backward(losses(net), tasks=range(TASKS))
    assert net.encoder[2].weight.grad is None
    assert net.sometimes.weight.grad is not None


@pytest.mark.parametrize("name", METHODS)
def test_bf16_parameters(name: str) -> None:
    net = Net(torch.bfloat16)
    combiner = Combiner(net.shared(), METHODS[name](), heads=net.heads.parameters())
    combiner.backward(losses(net), tasks=range(TASKS))
    exact = Net()
    exact.load_state_dict(net.state_dict())
    reference = Combiner(exact.shared(), METHODS[name](), heads=exact.heads.parameters())
    reference.backward(
        (exact.loss(t, batches(0, torch.bfloat16)[t].double()) for t in range(TASKS)), tasks=range(TASKS)
    )
    for (_, ours), (_, theirs) in zip(net.shared(), exact.shared(), strict=True):
        if theirs.grad is not None:
            assert ours.grad is not None
            assert ours.grad.dtype == torch.bfloat16
            assert float((ours.grad.double() - theirs.grad).norm()) <= 0.05 * float(theirs.grad.norm())


def test_sparse_embedding_gradients() -> None:
    dense, sparse = (nn.Embedding(10, 4, sparse=is_sparse) for is_sparse in (False, True))
    sparse.load_state_dict(dense.state_dict())
    for embedding in (dense, sparse):
        combiner = Combiner(embedding.parameters(), PCGrad())
        for _ in range(2):
            embedding.zero_grad()
            combiner.backward([embedding(torch.tensor(ids)).sum() * k for ids, k in (([1, 1, 2], 1), ([2, 3], -1))])
    torch.testing.assert_close(sparse.weight.grad, dense.weight.grad)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_non_finite_task_is_named_and_changes_nothing(name: str, what: str) -> None:
    net = Net()
    combiner = Combiner(net.shared(), METHODS[name](), heads=net.heads.parameters())
    combiner.backward(losses(net), tasks=range(TASKS))
    before = {key: value.clone() for key, value in combiner.state_dict().items()}
    left = [None if weight.grad is None else weight.grad.clone() for weight in net.parameters()]

    def bad(task: int) -> Tensor:
        loss = net.loss(task, batches()[task])
        spoiled = loss * torch.nan if what == "loss" else loss + (0 * net.weight("encoder.0.weight").sum()).sqrt()
        return spoiled if task == 1 else loss

    with pytest.raises(NonFiniteError, match=f"the {what} of task 1 is not finite"):
        combiner.backward([bad(task) for task in (2, 1, 0)], tasks=[2, 1, 0])
    for weight, gradient in zip(net.parameters(), left, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=0, atol=0)
    for key, value in combiner.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


def scalar(net: Net) -> Tensor:
    return net.loss(0, batches()[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: Combiner(n.parameters(), Joint(), groups="all_layer"), "give model.named_parameters"),
        (lambda n: Combiner(n.parameters(), Joint(), groups="layers"), "no groups 'layers'; there are whole_model"),
        (lambda n: Combiner([*n.parameters(), n.never.weight], Joint()), "given twice"),
        (lambda n: Combiner([], Joint()), "no parameter to train"),
        (lambda n: Combiner(n.parameters(), Joint(), heads=n.parameters()), "no parameter to train"),
        (
            lambda n: Combiner([("a", n.never.weight), ("b", nn.Parameter(torch.ones(2)))], Joint()),
            "one dtype and be on one device: a has torch.float64 on cpu, b torch.float32 on cpu; cast those that train",
        ),
        (lambda n: Combiner([nn.Parameter(torch.ones(2, dtype=torch.complex64))], Joint()), "torch.view_as_real"),
        (lambda n: Combiner(n.parameters(), Joint(), reduction="max"), 'must be "sum" or "mean"'),  # type: ignore[arg-type]
        (
            lambda n: Combiner(n.encoder.parameters(), Joint(), last_shared=[n.never.weight]),
            "last_shared must be among",
        ),
        (lambda n: Combiner(n.parameters(), Joint()).backward(iter([])), "losses has no length"),
        (
            lambda n: Combiner(n.parameters(), PCGrad()).backward(iter([scalar(n)]), tasks=[0, 1]),
            "fewer losses than the 2",
        ),
        (
            lambda n: Combiner(n.parameters(), PCGrad()).backward(iter([scalar(n)] * 2), tasks=[4]),
            "more losses than the 1",
        ),
        (lambda n: Combiner(n.parameters(), Joint()).backward([scalar(n)[None]]), "loss of task 0 must be a scalar"),
        (lambda n: Combiner(n.parameters(), Joint()).backward([torch.ones(())]), "a scalar with a graph"),
        (lambda n: Combiner(n.parameters(), GradVac(3)).backward([scalar(n)]), "say which tasks they are"),
        (lambda n: Combiner(n.parameters(), Joint()).backward([]), "no losses"),
        (
            lambda n: Combiner(n.parameters(), Joint()).load_state_dict(
                Combiner(n.encoder.parameters(), Joint()).state_dict()
            ),
            "this state is of .* parameters, and .* are combined",
        ),
    ],
)
def test_mistakes_are_named(call: Callable[[Net], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(Net())


@pytest.mark.parametrize("name", METHODS)
def test_a_combiner_resumes_bitwise(name: str) -> None:
    def make() -> tuple[Net, Combiner, torch.optim.Optimizer]:
        net = Net()
        combiner = Combiner(net.shared(), METHODS[name](), groups="all_layer", heads=net.heads.parameters())
        return net, combiner, torch.optim.AdamW(net.parameters(), lr=0.01)

    def train(net: Net, combiner: Combiner, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            optimizer.zero_grad()
            combiner.backward(losses(net, step), tasks=range(TASKS))
            optimizer.step()

    whole, resumed = make(), make()
    train(*whole, 0, 10)
    for i in range(3):
        resumed[i].load_state_dict(copy.deepcopy(whole[i].state_dict()))
    train(*whole, 10, 20)
    train(*resumed, 10, 20)
    for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_combiner_knows_which_parameters_had_a_gradient() -> None:
    both, one = (nn.Parameter(torch.ones(2)) for _ in range(2))
    first, resumed = (Combiner([("both", both), ("one", one)], PCGrad(seed=0)) for _ in range(2))
    first.backward([both.sum(), (both * one).sum()])
    resumed.load_state_dict(first.state_dict())
    both.grad = one.grad = None
    resumed.backward([both.sum()], tasks=[0])
    assert one.grad is not None, "its optimizer goes on with a gradient of zero, as it would have without the resume"
    assert not one.grad.any()

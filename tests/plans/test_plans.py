"""Methods by name: what recipes may say, what becomes of it, and how mistakes are told."""

import subprocess
import sys
from collections.abc import Iterable
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from multitune.cli import method_table
from multitune.cli.layout import fitted
from multitune.errors import DivergedError, RunError, UserError
from multitune.methods import RecAdam
from multitune.methods.averaging import WeightAverage
from multitune.methods.base import NonFiniteError
from multitune.methods.reptile import Reptile
from multitune.methods.sampling import CategoricalSampler
from multitune.methods.schedule import outer_lr_at
from multitune.methods.two_loop import Fish, Lookahead, SequentialReptile, TwoLoop
from multitune.plans import METHODS, find, listed
from multitune.plans.averaged import AveragedUpdate
from multitune.plans.plan import Plan
from multitune.plans.update import Setup, Update, WordEmbedding
from multitune.recipe_files import validated
from multitune.training.loading import load_plan
from multitune.training.sampling import probabilities

PROBABILITIES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


class Net(nn.Module):
    """A shared layer, and a head for each of three tasks."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.shared, self.heads = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        for weight in self.parameters():
            nn.init.normal_(weight, generator=generator)

    def losses(self, tasks: Iterable[int]) -> Iterable[Tensor]:
        inputs = torch.arange(12.0).view(3, 4) / 6 - 1
        return (self.heads[task](self.shared(inputs[task])).square().sum() for task in tasks)


def setup(net: Net, **changes: Any) -> Setup:
    given: dict[str, Any] = {
        "parameters": list(net.named_parameters()),
        "pretrained": frozenset({"shared.weight", "shared.bias"}),
        "task_heads": frozenset(name for name, _ in net.named_parameters() if name.startswith("heads")),
        "embedding": WordEmbedding(hidden_size=4, embedding_size=4),
        "probabilities": PROBABILITIES,
        "task_weights": "sampling",
        "make_sampler": lambda generator: CategoricalSampler(PROBABILITIES, generator=generator),
        "budget": 30,
        "make_optimizer": lambda named: AdamW([weight for _, weight in named], lr=0.01),
        "clip": None,
        "seed": 0,
    }
    return Setup(**(given | changes))


def made(method: str, net: Net | None = None, options: dict[str, Any] | None = None, **changes: Any) -> Update:
    return find(method).model_validate(options or {}).build(setup(net or Net(), **changes))


def two_loop(update: Update) -> TwoLoop:
    loop = vars(update)["_two_loop"]
    assert isinstance(loop, TwoLoop)
    return loop


@pytest.mark.parametrize("method", METHODS)
def test_every_plan_describes_itself_and_its_options(method: str) -> None:
    plan = METHODS[method]
    assert issubclass(plan, Plan)
    assert plan.summary
    assert "arXiv" in plan.paper
    assert made(method).draw(9)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sequental", {}, r"unknown method 'sequental' \(did you mean 'sequential'\?\).*torchjd:NAME"),
        ("PCGRAD", {}, "did you mean 'pcgrad'"),
        ("torchjd:gradvacc", {}, "unknown torchjd method 'gradvacc' .did you mean 'GradVac'"),
        ("torchjd:", {}, "unknown torchjd method ''.*allowed: AlignedMTL"),
        ("torchjd:MGDA", {"max_iter": 3}, "torchjd:MGDA: .*unexpected keyword"),
        ("torchjd:Krum", {}, "torchjd:Krum: .*n_byzantine"),
        ("torchjd:UPGrad", {"tasks_per_step": 0}, "tasks_per_step: must be at least 1, not 0"),
        ("torchjd:UPGrad", {"name": "MGDA"}, "torchjd:UPGrad: .*'name'"),
        ("gradvac", {"beta": 2}, "options of gradvac: beta: must be at most 1, not 2"),
        ("gradvac", {"groups": "layers"}, "groups: .*'whole_model', 'enc_dec', 'all_layer' or 'all_matrix'"),
        ("famo", {"groups": "all_layer"}, "unknown key 'groups'"),
        ("lookahead", {"outer_optimizer": "adam"}, "'sgd' or 'nesterov'"),
        ("fish", {"inner_steps": 0}, "inner_steps"),
        ("reptile", {"outer_lr": 0}, "outer_lr"),
        ("sequential_reptile", {"momentum": 1}, "momentum"),
        ("sequential_reptile", {"order": "shuffled"}, "'random' or 'permuted'"),
        ("fish", {"order": "permuted"}, "unknown key 'order'"),
        ("swep", {"p": 1}, "options of swep: p: .*less than 1"),
    ],
)
def test_mistakes_in_recipes_are_one_line(method: str, options: dict[str, Any], message: str) -> None:
    if method.startswith("torchjd"):
        pytest.importorskip("quadprog")
    with pytest.raises(UserError, match=message) as raised:
        load_plan(validated({"data": "panx", "method": method, "options": options}, "recipe"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("recadam", {"gamma": 200}, "options of recadam: lr=0.01 times gamma=200 is 2 or more"),
        ("torchjd:GradVac", {"tasks_per_step": 2}, "all 3 must be in every step: set tasks_per_step=3"),
        ("torchjd:Constant", {"tasks_per_step": 2, "weights": [1, 2]}, "set tasks_per_step=3"),
        ("torchjd:Constant", {"weights": [1, 2]}, "torchjd:Constant with 3 tasks a step: "),
        ("torchjd:Krum", {"n_byzantine": 5}, "torchjd:Krum with 3 tasks a step: "),
        ("torchjd:NashMTL", {"n_tasks": 2}, "torchjd:NashMTL with 3 tasks a step: "),
    ],
)
def test_options_that_do_not_fit_the_run_are_one_line(method: str, options: dict[str, Any], message: str) -> None:
    if method.startswith("torchjd"):
        pytest.importorskip("cvxpy")
    with pytest.raises(UserError, match=message) as raised:
        made(method, options=options)
    assert "\n" not in str(raised.value)


def test_combining_methods_take_distinct_tasks() -> None:
    for method in ("mtl", "gradnorm", "pcgrad", "gradvac", "famo", "recadam", "swep"):
        update = made(method, options={"tasks_per_step": 2})
        for _ in range(20):
            first, second = update.draw(9)
            assert first != second
        assert len(update.draw(1)) == 1, "what is left of the budget"
        assert len(made(method).draw(9)) == 3


def test_each_order_of_tasks() -> None:
    net = Net()
    assert sorted(steps(made("fish", net), net, [0.0] * 3)) == [0, 1, 2]
    reptile, met = made("reptile", net, {"inner_steps": 2}), []
    for _ in range(8):
        reptile.advance(0.01, 0.0)
        (task,) = drawn = reptile.draw(9)
        met.append(task)
        reptile.step(drawn, net.losses([task]))
    assert met == [0, 0, 1, 1, 2, 2, 0, 0]


def steps(update: Update, net: Net, progress: list[float]) -> list[int]:
    """The tasks of some steps."""
    met = []
    for share in progress:
        update.advance(0.01, share)
        (task,) = drawn = update.draw(9)
        update.step(drawn, net.losses([task]))
        met.append(task)
    return met


def test_permuted_inner_loops_meet_the_tasks_as_often_as_sampling_says() -> None:
    net, options = Net(), {"inner_steps": 10, "order": "permuted"}
    met = steps(made("sequential_reptile", net, options), net, [0.0] * 40)
    assert all([met[i : i + 10].count(task) for task in range(3)] == [5, 3, 2] for i in range(0, 40, 10))
    assert len({tuple(met[i : i + 10]) for i in range(0, 40, 10)}) > 1


def test_permuted_inner_loops_follow_a_schedule_of_their_length() -> None:
    net, options = Net(), {"inner_steps": 10, "inner_steps_end": 20, "order": "permuted"}
    met = steps(made("sequential_reptile", net, options), net, [0.0] * 10 + [1.0] * 20)
    assert [[part.count(task) for task in range(3)] for part in (met[:10], met[10:])] == [[5, 3, 2], [10, 6, 4]]


@pytest.mark.parametrize(
    ("method", "options", "often"),
    [
        ("sequential_reptile", {"inner_steps": 10, "order": "permuted"}, [5, 3, 2]),
        ("fish", {}, [1, 1, 1]),
        ("fish", {"inner_steps": 6}, [2, 2, 2]),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_skipped_step_does_not_shift_the_tasks_of_inner_loops(
    method: str, options: dict[str, Any], often: list[int], before: int
) -> None:
    net, length = Net(), sum(often)
    update, resumed = made(method, net, options), made(method, net, options)
    steps(update, net, [0.0] * before)
    with pytest.raises(NonFiniteError, match="the loss of task"):
        update.step(update.draw(9), [torch.tensor(float("nan"), requires_grad=True)])
    resumed.load_state_dict(update.state_dict())
    rest = steps(update, net, [0.0] * (length - before))
    met = steps(update, net, [0.0] * length)
    assert [met.count(task) for task in range(3)] == often
    assert steps(resumed, net, [0.0] * (2 * length - before)) == rest + met


def test_fish_meets_each_task_once_in_a_round_where_its_loops_are_shorter() -> None:
    net = Net()
    met = steps(made("fish", net, {"inner_steps": 2}), net, [0.0] * 12)
    assert all(sorted(met[i : i + 3]) == [0, 1, 2] for i in range(0, 12, 3))


@pytest.mark.parametrize("trajectories", [1, 2])
def test_weights_that_are_not_finite_end_the_run_and_do_not_ship(trajectories: int) -> None:
    """No later batch could mend them; what is drawn next would be nothing, for ever."""
    net = Net()
    update = made("sequential_reptile", net, {"inner_steps": 2, "trajectories": trajectories})
    drawn = [0] * trajectories
    update.advance(0.1, 0.0)
    update.step(drawn, net.losses(drawn))
    with torch.no_grad():
        net.heads[2].weight.fill_(torch.inf)  # type: ignore[operator]
    with pytest.raises(DivergedError, match="at the end of an inner loop the fast weights are NaN or infinite"):
        update.step(drawn, net.losses(drawn))
    with pytest.raises(RunError, match="at the end of the budget the fast weights are NaN or infinite"):
        update.finish()


class Latest(WeightAverage):
    """The newest value alone; keeps the times between values."""

    def __init__(self, net: Net) -> None:
        super().__init__(net.parameters())
        self.elapsed: list[float] = []

    def update(self, elapsed: float = 1.0) -> None:
        self.elapsed.append(elapsed)
        self._kept = [self._snapshot()]

    def _average(self) -> list[Tensor]:
        return self._kept[0]


@pytest.mark.parametrize(
    ("method", "options", "elapsed"),
    [
        ("sequential", {}, [1] * 13),
        ("mtl", {"tasks_per_step": 2}, [2, 2, 2, 2, 2, 2, 1]),
        ("sequential_reptile", {"inner_steps": 4}, [4, 4, 4, 1]),
        ("reptile", {"inner_steps": 2}, [6, 6, 1]),
        ("reptile", {"inner_steps": 2, "inner_state": "carry"}, [6, 6, 1]),
    ],
)
def test_an_average_takes_in_each_change_of_what_would_ship(
    method: str, options: dict[str, Any], elapsed: list[int]
) -> None:
    net = Net()
    average = Latest(net)
    update = AveragedUpdate(setup(net, budget=13), made(method, net, options, budget=13), average, interval=None)
    spent = 0
    while spent < 13:
        update.advance(0.01, spent / 13)
        drawn = update.draw(13 - spent)
        update.step(drawn, net.losses(drawn))
        spent += len(drawn)
    update.finish()
    assert average.elapsed == elapsed


@pytest.mark.parametrize(
    ("method", "budget", "steps"),
    [
        ("reptile", 30, 1),
        ("reptile", 300, 10),
        ("reptile", 10**6, 1000),
        ("fish", 30, 3),
        ("lookahead", 10, 1),
        ("lookahead", 2400, 100),
        ("sequential_reptile", 2400, 100),
        ("sequential_reptile", 10**6, 1000),
    ],
)
def test_inner_steps_that_no_recipe_sets(method: str, budget: int, steps: int) -> None:
    assert two_loop(made(method, budget=budget)).loop_length == steps


@pytest.mark.parametrize(
    ("method", "kind"),
    [("sequential_reptile", SequentialReptile), ("reptile", Reptile), ("lookahead", Lookahead), ("fish", Fish)],
)
def test_inner_state_has_the_same_default_in_python_and_in_recipes(method: str, kind: type[TwoLoop]) -> None:
    assert signature(kind).parameters["inner_state"].default == METHODS[method].model_fields["inner_state"].default


@pytest.mark.parametrize(
    ("method", "options", "eta"),
    [
        ("sequential_reptile", {}, (0.5, 1.0)),
        ("reptile", {"outer_lr_end": 0.8}, (0.5, 0.8)),
        ("lookahead", {"outer_lr": 0.1}, (0.1, 0.1)),
        ("fish", {"outer_lr": 0.1, "outer_lr_end": 0.3}, (0.1, 0.3)),
        ("sequential_reptile", {"outer_optimizer": "nesterov"}, (0.7, 0.7)),
    ],
)
def test_outer_rates_that_no_recipe_sets(method: str, options: dict[str, Any], eta: tuple[float, float]) -> None:
    loop = two_loop(made(method, options=options))
    assert (outer_lr_at(loop._outer_lr, 0.0), outer_lr_at(loop._outer_lr, 1.0)) == eta


@pytest.mark.parametrize(
    ("method", "budget", "options", "percent"),
    [
        ("sequential_reptile", 2400, {"inner_steps": 1000, "outer_lr": 0.1}, 27),  # 1 - 0.9^3: the last loop is cut
        ("sequential_reptile", 240, {"inner_steps": 1000}, None),  # eta is all but 1 at the end
        ("sequential_reptile", 30, {"inner_steps": 30, "outer_lr": 0.4}, 40),
        ("sequential_reptile", 30, {"inner_steps": 29, "outer_lr": 0.4}, None),
        ("lookahead", 30, {"inner_steps": 10, "inner_steps_end": 1, "outer_lr": 0.09}, 48),  # loops of 10 7 5 3 2 2 1
        ("reptile", 36, {"inner_steps": 3, "outer_lr": 0.1}, 34),  # four rounds of three tasks
        ("fish", 9, {"outer_lr": 0.1, "outer_lr_end": 0.3}, None),
        ("sequential_reptile", 30, {"outer_lr": 0.1, "outer_optimizer": "nesterov"}, None),
        ("sequential", 30, {}, None),
    ],
)
def test_a_run_says_where_its_slow_weights_go_less_than_half_the_way(
    method: str, budget: int, options: dict[str, Any], percent: int | None
) -> None:
    notes = made(method, options=options, budget=budget).notes
    assert [note.split("%")[0] for note in notes] == ([] if percent is None else [f"the shipped weights go {percent}"])


@pytest.mark.parametrize("method", ["sequential_reptile", "lookahead", "fish", "reptile"])
@pytest.mark.parametrize("budget", [1, 7, 240, 2400, 40000])
def test_defaults_fit_every_budget(method: str, budget: int) -> None:
    assert not made(method, budget=budget).notes


def test_the_way_that_is_foretold_is_the_way_that_is_gone() -> None:
    """A step from anywhere goes to 1, so that the slow weights end where their share of the way ends."""
    weight = nn.Parameter(torch.zeros(()))
    update = made(
        "sequential_reptile",
        options={"inner_steps": 7, "inner_steps_end": 3, "outer_lr": 0.02, "outer_lr_end": 0.1},
        budget=40,
        parameters=[("weight", weight)],
        pretrained=frozenset({"weight"}),
        task_heads=frozenset(),
        make_optimizer=lambda named: torch.optim.SGD([weight for _, weight in named], lr=1.0),
    )
    for step in range(40):
        update.advance(1.0, step / 40)
        update.step(update.draw(40 - step), [(weight - 1.0).square() / 2])
    update.finish()
    (note,) = update.notes
    assert f"go {weight.item():.0%} of the way" in note
    assert 0.1 < weight.item() < 0.5


def after_steps(tasks: list[int]) -> Tensor:
    """The shared weights after plain SGD steps at 0.01."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for loss in net.losses(tasks):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.shared.weight.detach()


def test_the_budget_may_end_within_reptiles_round() -> None:
    net = Net()
    sgd = {"make_optimizer": lambda named: torch.optim.SGD([weight for _, weight in named], lr=0.01)}
    update = made("reptile", net, {"inner_steps": 2, "outer_lr": 0.5}, **sgd)
    for _ in range(3):
        update.advance(0.01, 0.5)
        drawn = update.draw(9)
        update.step(drawn, net.losses(drawn))
    update.finish()
    mean = (after_steps([0, 0]) + after_steps([1]) + after_steps([])) / 3
    torch.testing.assert_close(net.shared.weight.detach(), (after_steps([]) + mean) / 2)


def test_recadam_recalls_pretrained_weights_alone_and_by_steps_of_the_run() -> None:
    net = Net()
    optimizer = vars(made("recadam", net, budget=60))["_optimizer"]
    assert isinstance(optimizer, RecAdam)
    recalled = [weight for group in optimizer.param_groups if group["recall"] for weight in group["params"]]
    assert {id(weight) for weight in recalled} == {id(weight) for weight in net.shared.parameters()}
    assert {group["t0"] for group in optimizer.param_groups} == {5.0}
    assert {group["gamma"] for group in optimizer.param_groups} == {100.0}
    long = vars(made("recadam", budget=10**5, make_optimizer=lambda named: AdamW([w for _, w in named], 1e-4)))
    assert {(group["t0"], group["gamma"]) for group in long["_optimizer"].param_groups} == {(250.0, 5000.0)}


@pytest.mark.parametrize("method", ["mtl", "pcgrad", "torchjd:Mean"])
def test_task_heads_are_left_out_of_the_combination(method: str) -> None:
    if method.startswith("torchjd"):
        pytest.importorskip("torchjd")
    net = Net()
    update = made(method, net, make_optimizer=lambda named: torch.optim.SGD([weight for _, weight in named], lr=1.0))
    head = net.heads[1]
    assert isinstance(head, nn.Linear)
    before = head.bias.detach().clone()
    (loss,) = net.losses([1])
    (gradient,) = torch.autograd.grad(loss, head.bias)
    update.step([0, 1, 2], net.losses(range(3)))
    scale = {"torchjd:Mean": 3}.get(method, 1) * PROBABILITIES[1].float()  # TorchJD's mean is of the shared rows alone
    torch.testing.assert_close(head.bias, before - gradient * scale)


class Arms(nn.Module):
    """A parameter whose part t is the gradient of task t's loss: orthonormal gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(5))

    def shares(self, method: str, steps: int, **changes: Any) -> Tensor:
        """What each task has of the gradient on average, as shares of a step's sum."""
        found = torch.zeros(5)
        given = {"parameters": [("position", self.position)], "pretrained": frozenset({"position"})}
        given |= {"task_heads": frozenset(), "probabilities": FIVE} | changes
        options = given.pop("options", {})
        update = find(method).model_validate(options).build(setup(Net(), **given))

        def take(*_: Any) -> None:
            assert self.position.grad is not None
            found.add_(self.position.grad / self.position.grad.sum() / steps)
            self.position.grad.zero_()

        vars(update)["_optimizer"].register_step_pre_hook(take)
        for _ in range(steps):
            drawn = update.draw(9)
            update.step(drawn, [1.0 + self.position[task] - self.position[task].detach() for task in drawn])
        return found


FIVE = torch.tensor([0.395, 0.249, 0.157, 0.1, 0.099], dtype=torch.float64)
"""Five languages of 100k to 100 examples and q = 0.2."""
WEIGHTED = ["mtl", "pcgrad", "gradvac", "recadam", "swep"]
WEIGHTED += [f"torchjd:{name}" for name in ("UPGrad", "DualProj", "ConFIG", "AlignedMTL", "Mean", "PCGrad")]


def needs_torchjd(method: str) -> None:
    if method.startswith("torchjd"):
        pytest.importorskip("quadprog")


@pytest.mark.parametrize(
    ("tasks_per_step", "steps", "within"),
    [(8, 3, 1e-6), (3, 400, 0.04), pytest.param(3, 1500, 0.02, marks=pytest.mark.check)],
)
@pytest.mark.parametrize("method", WEIGHTED)
def test_each_task_has_its_share_of_the_gradient(method: str, tasks_per_step: int, steps: int, within: float) -> None:
    needs_torchjd(method)
    shares = Arms().shares(method, steps, options={"tasks_per_step": tasks_per_step})
    torch.testing.assert_close(shares, FIVE.float(), atol=within, rtol=0)


@pytest.mark.parametrize("method", WEIGHTED)
def test_tasks_of_a_step_may_have_equal_weights_as_in_the_papers(method: str) -> None:
    needs_torchjd(method)
    torch.testing.assert_close(Arms().shares(method, 1, task_weights="equal"), torch.full((5,), 0.2))


@pytest.mark.parametrize("method", ["gradnorm", "famo", "torchjd:MGDA", "torchjd:Constant"])
def test_methods_that_set_the_weights_themselves_get_the_shares_through_the_draws_alone(method: str) -> None:
    needs_torchjd(method)
    options = {"weights": [0.2] * 5} if method == "torchjd:Constant" else {}
    torch.testing.assert_close(Arms().shares(method, 1, options=options), torch.full((5,), 0.2))


def test_a_preference_that_the_recipe_gives_is_kept() -> None:
    needs_torchjd("torchjd:UPGrad")
    own = [0.1, 0.2, 0.3, 0.2, 0.2]
    torch.testing.assert_close(Arms().shares("torchjd:UPGrad", 1, options={"pref_vector": own}), torch.tensor(own))


def test_torchjd_steps_are_whole_and_in_the_tasks_order() -> None:
    pytest.importorskip("torchjd")
    update = made("torchjd:MGDA", options={"tasks_per_step": 2})
    assert update.smallest_step == 2
    for _ in range(20):
        drawn = update.draw(9)
        assert drawn == sorted(drawn)
    assert made("torchjd:MGDA").smallest_step == 3


def test_swep_counts_two_computations_and_trains_its_own_network() -> None:
    net = Net()
    update = made("swep", net)
    assert (update.cost, update.smallest_step) == (2, 2)
    own = list(vars(update)["_swep"].parameters())
    trained = {id(weight) for group in vars(update)["_optimizer"].param_groups for weight in group["params"]}
    assert trained == {id(weight) for weight in [*net.parameters(), *own]}


def test_samplers_by_name() -> None:
    def shares(**keys: Any) -> list[float]:
        recipe = validated({"data": "panx", "budget": 10, "batch_size": 6, **keys}, "recipe")
        found: list[float] = probabilities(recipe, [10, 1000]).tolist()
        return found

    assert shares(sampling="uniform") == [0.5, 0.5]
    assert shares(sampling_exponent=1) == pytest.approx([1 / 101, 100 / 101])
    assert shares(sampling="unimax") == pytest.approx([0.5, 0.5])  # 30 of 60 draws are three epochs of the small one
    assert shares(sampling="unimax", sampling_epochs=1) == pytest.approx([10 / 60, 50 / 60])
    assert shares(sampling="epochs") == shares(sampling_exponent=1)
    with pytest.raises(UserError, match="sampling_exponent: 200 leaves no share at all for a language with 10 of up"):
        shares(sampling_exponent=200)
    with pytest.raises(UserError, match="'proportional', 'uniform', 'unimax' or 'epochs'"):
        shares(sampling="unimaxx")


def test_the_list_has_every_method_and_torchjds() -> None:
    text = fitted(method_table.methods(listed()), 100).plain
    for name in [*METHODS, "torchjd:NAME", "tasks_per_step=8", "t0=null", "arXiv 2110.02600"]:
        assert name in text


@pytest.mark.parametrize(
    "code", ["import multitune.plans", "from multitune.cli.app import app; app(['methods'], standalone_mode=False)"]
)
def test_listing_the_methods_loads_no_torch(code: str) -> None:
    code += "; import sys; print('heavy:', {'torch', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("heavy: set()\n")

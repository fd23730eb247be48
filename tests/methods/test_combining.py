"""The combining methods from their Gram matrix: against literal references, TorchJD, autograd and closed forms."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import literal
from multitune.errors import UserError
from multitune.methods.base import CombiningMethod, GramMethod, NonFiniteError, RowsMethod, random_order
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm, weight_gradient
from multitune.methods.gradvac import GradVac, gradvac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad, pcgrad
from multitune.methods.torchjd import torchjd

aggregation = pytest.importorskip("torchjd.aggregation")

KINDS = ["random", "conflicting", "antiparallel", "parallel", "zero", "uneven"]
SHAPES = [(2, 1), (2, 10_000), (3, 2), (3, 100), (5, 1), (8, 7), (8, 10_000), (12, 1), (12, 40)]
SCALES = [1e-10, 1.0, 1e10]


def gradients(kind: str, tasks: int, size: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    """A [tasks, size] float64 matrix of the zoo."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    match kind:
        case "conflicting":
            rows -= rows.mean(0) * 1.05
        case "antiparallel":
            rows[1] = -rows[0] * 3
        case "parallel":
            rows[:] = rows[0] * torch.arange(1, tasks + 1)[:, None] ** 1.5
        case "zero":
            rows[tasks // 2] = 0
        case "uneven":
            rows *= torch.logspace(-3, 3, tasks, dtype=torch.float64)[:, None]
    return rows * scale


ZOO = [(kind, tasks, size, scale) for kind in KINDS for tasks, size in SHAPES for scale in SCALES]


def order_of(seed: int, tasks: int) -> list[list[int]]:
    order: list[list[int]] = random_order(tasks, torch.Generator().manual_seed(seed)).tolist()
    return order


def assert_same(direction: Tensor, reference: Tensor, rows: Tensor) -> None:
    """Equal to 1e-10 of the largest task gradient."""
    assert float((direction - reference).norm()) <= 1e-10 * float(rows.norm(dim=1).max())


def test_each_task_meets_the_others_in_every_order() -> None:
    """The literal algorithms get the methods' own order, so that they cannot tell whether it is shuffled."""
    generator = torch.Generator().manual_seed(0)
    drawn = [random_order(4, generator).tolist() for _ in range(200)]
    for i in range(4):
        others = [j for j in range(4) if j != i]
        assert {tuple(orders[i]) for orders in drawn} == set(permutations(others))


@pytest.mark.parametrize(("kind", "tasks", "size", "scale"), ZOO)
def test_pcgrad_is_the_literal_algorithm(kind: str, tasks: int, size: int, scale: float) -> None:
    for seed in range(3):
        rows = gradients(kind, tasks, size, scale, seed)
        weights = PCGrad(seed=seed).weights(rows @ rows.T)
        assert_same(weights @ rows, literal.pcgrad(rows, order_of(seed, tasks)), rows)


@pytest.mark.parametrize(("kind", "tasks", "size", "scale"), ZOO)
@pytest.mark.parametrize("beta", [0.01, 0.5])
def test_gradvac_is_the_literal_algorithm(kind: str, tasks: int, size: int, scale: float, beta: float) -> None:
    method, generator = GradVac(num_tasks=tasks, beta=beta, seed=7), torch.Generator().manual_seed(7)
    targets = [[0.0] * tasks for _ in range(tasks)]
    for seed in range(3):
        rows = gradients(kind, tasks, size, scale, seed)
        order = random_order(tasks, generator).tolist()
        assert_same(method.weights(rows @ rows.T) @ rows, literal.gradvac(rows, targets, order, beta), rows)
        torch.testing.assert_close(method.targets[0], torch.tensor(targets, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "tasks", "size", "scale"), ZOO)
def test_gradnorm_is_the_literal_algorithm(kind: str, tasks: int, size: int, scale: float) -> None:
    lr = 0.01 / scale
    method, reference = GradNorm(tasks, lr=lr), literal.GradNorm(tasks, alpha=1.5, lr=lr)
    for seed in range(5):
        rows = gradients(kind, tasks, size, scale, seed)
        losses = torch.rand(tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
        direction = method.weights(rows @ rows.T, losses=losses) @ rows
        assert_same(direction, reference.direction(rows, losses.tolist()), rows)
        assert float(method.task_weights.sum()) == pytest.approx(tasks)


def test_joint_is_the_sum() -> None:
    assert Joint().weights(torch.eye(3)).tolist() == [1.0, 1.0, 1.0]


METHODS: dict[str, Callable[[int], GramMethod]] = {
    "Joint": lambda tasks: Joint(),
    "GradNorm": GradNorm,
    "PCGrad": lambda tasks: PCGrad(),
    "GradVac": GradVac,
    "FAMO": FAMO,
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_float64_one_a_task(name: str, dtype: torch.dtype) -> None:
    rows = gradients("random", 4, 9)
    weights = METHODS[name](4).weights((rows @ rows.T).to(dtype), losses=torch.ones(4))
    assert weights.dtype == torch.float64
    assert weights.shape == (4,)
    assert weights.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_one_task_alone_keeps_its_gradient(name: str) -> None:
    weights = METHODS[name](1).weights(torch.tensor([[4.0]]), losses=[2.0])
    assert weights.tolist() == pytest.approx([1.0])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("at_fault", [0, 3])
def test_a_nan_names_its_task_and_changes_no_state(name: str, bad: float, at_fault: int) -> None:
    method = METHODS[name](9)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    rows, tasks = gradients("random", 4, 9), [8, 1, 0, 5]
    rows[at_fault, 2] = bad
    losses = torch.ones(4)
    with pytest.raises(NonFiniteError, match=f"the gradient of task {tasks[at_fault]} is not finite"):
        method.weights(rows @ rows.T, tasks=tasks, losses=losses)
    losses[at_fault] = bad
    with pytest.raises(NonFiniteError, match=f"the loss of task {tasks[at_fault]} is not finite") as raised:
        method.weights(torch.eye(4), tasks=tasks, losses=losses)
    assert raised.value.tasks == [tasks[at_fault]]
    for key, value in method.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PCGrad().weights(torch.ones(2, 3)), r"gram must be \[n, n\]"),
        (lambda: PCGrad().weights(torch.ones(2, 2, dtype=torch.long)), "and float"),
        (lambda: PCGrad().weights(torch.eye(2), tasks=[1]), "2 different numbers"),
        (lambda: PCGrad().weights(torch.eye(2), tasks=[1, 1]), "2 different numbers"),
        (lambda: PCGrad().weights(torch.eye(2), losses=[1.0]), r"losses must be \[2\]"),
        (lambda: GradVac(3).weights(torch.eye(2)), "say which tasks they are"),
        (lambda: GradVac(3).weights(torch.eye(2), tasks=[1, 3]), "from 0 to 3 - 1"),
        (lambda: GradVac(2).weights(torch.eye(2).repeat(5, 1, 1)), "call for_groups"),
        (lambda: GradVac(2, beta=1.5), "beta from 0 to 1"),
        (lambda: GradNorm(2).weights(torch.eye(2)), "GradNorm needs losses"),
        (lambda: GradNorm(2).weights(torch.eye(2), losses=[-0.1, 1.0]), "must not be negative"),
        (lambda: FAMO(2).weights(torch.eye(2)), "FAMO needs losses"),
        (lambda: FAMO(2).weights(torch.eye(2), losses=[1.0, -1.0]), r"tasks \[1\] are not above their minimum"),
        (lambda: FAMO(2).update([1.0, 1.0]), "call it once, after that step"),
        (lambda: FAMO(2, min_losses=[0.0]), "must have 2 values"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_gradvac_correction_reaches_its_target() -> None:
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(2, 20, generator=generator, dtype=torch.float64)
        target = float(torch.rand((), generator=generator, dtype=torch.float64)) * 0.98 + 0.01
        method = GradVac(num_tasks=2)
        method.targets[0, 0, 1], method.targets[0, 1, 0] = target, -1.0  # of the two, only g'_0 can be corrected
        weights = method.weights(rows @ rows.T)
        modified = weights[0] * rows[0] + (weights[1] - 1) * rows[1]
        before = float(torch.cosine_similarity(rows[0], rows[1], dim=0))
        after = float(torch.cosine_similarity(modified, rows[1], dim=0))
        assert after == pytest.approx(max(before, target), abs=1e-12)


@pytest.mark.parametrize(("kind", "tasks", "size", "scale"), ZOO)
def test_gradvac_with_targets_zero_is_pcgrad(kind: str, tasks: int, size: int, scale: float) -> None:
    rows = gradients(kind, tasks, size, scale)
    vaccine, surgery = GradVac(num_tasks=tasks, beta=0.0, seed=3), PCGrad(seed=3)
    for _ in range(2):
        gram = rows @ rows.T
        assert_same(vaccine.weights(gram) @ rows, surgery.weights(gram) @ rows, rows)


def test_gradvac_targets_follow_similar_tasks_too() -> None:
    """The bug of other implementations: targets that move only with a correction never rise above 0."""
    gram = torch.tensor([[1.0, 0.6], [0.6, 1.0]])
    method = GradVac(num_tasks=2, beta=0.1)
    for step in range(1, 30):
        assert method.weights(gram).tolist() == [1.0, 1.0]
        expected = 0.6 * (1 - 0.9**step)
        assert method.targets[0, 0, 1] == pytest.approx(expected)
        assert method.targets[0, 1, 0] == pytest.approx(expected)


def test_gradvac_targets_are_those_of_the_sampled_tasks() -> None:
    gram = gradients("random", 2, 5)
    method = GradVac(num_tasks=6, beta=0.1)
    method.weights(gram @ gram.T, tasks=[4, 1])
    assert set(map(tuple, method.targets[0].nonzero().tolist())) == {(4, 1), (1, 4)}


def test_gradvac_stays_finite_when_parallel_tasks_part() -> None:
    method = GradVac(num_tasks=2, beta=0.5)
    for _ in range(100):
        method.weights(torch.ones(2, 2))
    assert method.weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]])).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_groups_at_once_are_a_loop_over_groups(kind: str) -> None:
    rows = [gradients(kind, 6, 30, seed=seed) for seed in range(5)]
    grams = torch.stack([row @ row.T for row in rows])
    targets = torch.rand(5, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.3
    order = random_order(6, torch.Generator().manual_seed(1))
    together, new_targets = gradvac(grams, targets, order, 0.1)
    for group in range(5):
        alone, new_target = gradvac(grams[group : group + 1], targets[group : group + 1], order, 0.1)
        torch.testing.assert_close(together[group], alone[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(new_targets[group], new_target[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(pcgrad(grams, order)[group], pcgrad(grams[group : group + 1], order)[0])
    assert PCGrad().weights(grams).shape == (5, 6)


@pytest.mark.parametrize("kind", ["random", "conflicting", "antiparallel", "uneven"])
def test_pcgrad_is_torchjds_in_the_same_order(kind: str) -> None:
    for seed in range(5):
        rows = gradients(kind, 6, 50, seed=seed)
        gram = rows @ rows.T
        torch.manual_seed(seed)
        torch.testing.assert_close(PCGrad(seed).weights(gram), aggregation.PCGradWeighting()(gram))


@pytest.mark.parametrize("kind", ["random", "conflicting", "uneven"])
def test_gradvac_is_torchjds_in_the_same_order(kind: str) -> None:
    theirs, targets = aggregation.GradVacWeighting(beta=0.1, eps=0.0), torch.zeros(1, 6, 6, dtype=torch.float64)
    others = torch.tensor([[j for j in range(6) if j != i] for i in range(6)])
    for seed in range(20):
        rows = gradients(kind, 6, 50, seed=seed)
        gram = rows @ rows.T
        torch.manual_seed(seed)
        order = torch.stack([others[i, torch.randperm(5)] for i in range(6)])
        ours, targets = gradvac(gram[None], targets, order, 0.1)
        torch.manual_seed(seed)
        torch.testing.assert_close(ours[0], theirs(gram))


@pytest.mark.parametrize("min_losses", [None, [0.1, 0.2, 0.0]])
def test_famo_is_torchjds(min_losses: list[float] | None) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    lower = None if min_losses is None else torch.tensor(min_losses, dtype=torch.float64)
    theirs, ours = scalarization.FAMO(3, min_losses=lower).double(), FAMO(3, min_losses=min_losses)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        before, after = torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.3
        before.requires_grad_()
        (expected,) = torch.autograd.grad(theirs(before), before)
        weights = ours.weights(torch.eye(3), losses=before)
        torch.testing.assert_close(weights, expected)
        assert float(weights.sum()) == pytest.approx(1)
        theirs.update(after)
        ours.update(after)
    torch.testing.assert_close(ours.logits, theirs._w.detach())


def test_famo_without_update_learns_from_the_next_visit() -> None:
    told, waiting = FAMO(4), FAMO(4)
    for losses in ([1.0, 2.0], [0.5, 1.9], [0.4, 1.0]):
        if not told.last_losses[[2, 0]].isnan().any():
            told.update(losses, tasks=[2, 0])
        told.weights(torch.eye(2), losses=losses, tasks=[2, 0])
        waiting.weights(torch.eye(2), losses=losses, tasks=[2, 0])
    torch.testing.assert_close(told.logits, waiting.logits)
    assert float(waiting.logits[0]) > 0 > float(waiting.logits[2])  # task 0 fell behind
    assert waiting.last_losses.isnan().tolist() == [False, True, False, True]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_gradnorms_weight_gradient_is_that_of_a_double_backward(alpha: float) -> None:
    torch.manual_seed(0)
    shared, inputs = nn.Linear(5, 4).double(), torch.randn(3, 10, 5, dtype=torch.float64)
    losses = torch.stack([(i + 1) * shared(x).tanh().square().mean() for i, x in enumerate(inputs)])
    weights = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    rates = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64)

    def norm(loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, shared.weight, create_graph=True)
        found: Tensor = torch.linalg.vector_norm(gradient)
        return found

    G = torch.stack([norm(weight * loss) for weight, loss in zip(weights, losses, strict=True)])
    target = (G.mean() * (rates / rates.mean()) ** alpha).detach()
    (expected,) = torch.autograd.grad((G - target).abs().sum(), weights)
    norms = torch.stack([norm(loss).detach() for loss in losses])
    torch.testing.assert_close(weight_gradient(weights.detach(), norms, rates, alpha), expected)


def test_gradnorm_helps_the_slow_task() -> None:
    """One public version has r^(-alpha): it would lower the weight of the task that trains more slowly."""
    method = GradNorm(num_tasks=2)
    method.weights(torch.eye(2), losses=[1.0, 1.0])
    method.weights(torch.eye(2), losses=[0.1, 0.9])
    assert float(method.task_weights[1]) > 1 > float(method.task_weights[0])


def test_gradnorm_remembers_first_losses_by_task() -> None:
    method = GradNorm(num_tasks=4)
    method.weights(torch.eye(2), losses=[3.0, 2.0], tasks=[3, 1])
    method.weights(torch.eye(2), losses=[1.0, 5.0], tasks=[1, 0])
    torch.testing.assert_close(method.initial_losses, torch.tensor([5.0, 2.0, torch.nan, 3.0]).double(), equal_nan=True)


def test_gradnorm_waits_for_a_loss_above_zero() -> None:
    """Task 0 has nothing to learn at first: until its first loss above zero its ratio to that is 1."""
    waiting, told = GradNorm(num_tasks=2), GradNorm(num_tasks=2)
    waiting.weights(torch.zeros(2, 2), losses=[0.0, 0.0])
    assert waiting.task_weights.tolist() == [1.0, 1.0]
    assert waiting.initial_losses.isnan().all()
    for loss, with_ratio in ((0.0, 3.0), (0.0, 3.0), (3.0, 3.0), (1.5, 1.5), (0.0, 0.0)):
        waiting.weights(torch.eye(2), losses=[loss, 2.0])
        told.weights(torch.eye(2), losses=[with_ratio, 2.0])
    assert torch.equal(waiting.task_weights, told.task_weights)
    assert waiting.initial_losses.tolist() == [3.0, 2.0]


TORCHJD: dict[str, dict[str, Any]] = {
    "AlignedMTL": {},
    "CAGrad": {"c": 0.4},
    "Constant": {"weights": [1.0, 2.0, 3.0, 4.0]},
    "ConFIG": {},
    "CRMOGM": {"weighting": "MGDA", "alpha": 0.5},
    "DualProj": {},
    "ExcessMTL": {},
    "FairGrad": {"alpha": 1.0},
    "GradDrop": {},
    "GradVac": {},
    "IMTLG": {},
    "Krum": {"n_byzantine": 1},
    "Mean": {},
    "MGDA": {},
    "NashMTL": {"n_tasks": 4},
    "PCD": {},
    "PCGrad": {},
    "Random": {},
    "Sum": {},
    "TrimmedMean": {"trim_number": 1},
    "UPGrad": {"pref_vector": [1.0, 2.0, 1.0, 1.0]},
}


def torchjd_or_skip(name: str) -> GramMethod | RowsMethod:
    try:
        return torchjd(name, **TORCHJD[name])
    except UserError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))


def direction(method: CombiningMethod, rows: Tensor, losses: Tensor | None = None) -> Tensor:
    if isinstance(method, RowsMethod):
        return method.combine(rows)
    assert isinstance(method, GramMethod)
    return method.weights(rows @ rows.T, losses=losses) @ rows


def test_every_torchjd_method_is_known() -> None:
    unfit = {"Aggregator", "Weighting", "WeightedAggregator", "GramianWeightedAggregator", "MoDoWeighting"}
    names = {name.removesuffix("Weighting") for name in set(aggregation.__all__) - unfit - {"SDMGradWeighting"}}
    assert names == set(TORCHJD)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")  # theirs, of NashMTL
@pytest.mark.parametrize("name", sorted(set(TORCHJD) - {"CRMOGM", "GradDrop", "PCGrad", "GradVac", "Random"}))
def test_torchjd_methods_are_torchjds(name: str) -> None:
    method = torchjd_or_skip(name)
    options = {k: torch.tensor(v).double() if isinstance(v, list) else v for k, v in TORCHJD[name].items()}
    theirs = getattr(aggregation, name)(**options)
    for seed in range(3):
        rows = gradients("conflicting", 4, 30, seed=seed)
        torch.testing.assert_close(direction(method, rows), theirs(rows))


@pytest.mark.parametrize("name", TORCHJD)
def test_torchjd_methods_at_the_edges(name: str) -> None:
    """Of what they are defined for: no gradient, none of one task, all on one line, tiny, huge, in bf16."""
    method, rows = torchjd_or_skip(name), gradients("random", 4, 30)
    line = torch.tensor([1.0, -1.0, 2.0, -3.0]).double()[:, None] * rows[0]
    for matrix in (rows, rows * 0, rows * torch.tensor([1, 1, 0, 1])[:, None], line, rows * 1e-12, rows * 1e12):
        for _ in range(2):
            assert direction(method, matrix).isfinite().all()
    if isinstance(method, RowsMethod):
        assert method.combine(rows.bfloat16()).dtype == torch.bfloat16
        assert not method.combine(rows * 0).any()


@pytest.mark.parametrize("name", ["Random", "GradDrop", "PCGrad"])
def test_torchjd_draws_from_our_generator(name: str) -> None:
    rows, results = gradients("conflicting", 4, 30), []
    for seed in (1, 1, 2):
        state = torch.get_rng_state()
        results.append(direction(torchjd(name, seed=seed), rows))
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("UpGrad", {}, r"unknown torchjd method 'UpGrad' \(did you mean 'UPGrad'\?\)"),
        ("CAGrad", {}, "torchjd:CAGrad: .*'c'"),
        ("Krum", {"n_byzantine": -1}, "torchjd:Krum: n_byzantine must be"),
        ("MGDA", {"steps": 3}, "torchjd:MGDA: .*unexpected keyword"),
        ("Aggregator", {}, "an abstract base class"),
        ("MoDoWeighting", {}, "two independent batches"),
        ("CRMOGM", {}, "name it, as in weighting=UPGrad"),
        ("CRMOGM", {"weighting": "GradDrop"}, "that method has none"),
    ],
)
def test_torchjd_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        torchjd(name, **options)
    assert "\n" not in str(raised.value)


def test_a_missing_torchjd_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(UserError, match=r"pip install 'multitune\[torchjd\]'"):
        torchjd("UPGrad")


RESUMED: dict[str, Callable[[], CombiningMethod]] = {
    **{name: partial(make, 4) for name, make in METHODS.items()},
    **{f"torchjd:{name}": partial(torchjd_or_skip, name) for name in TORCHJD},
}


def run_steps(method: CombiningMethod, first: int, last: int) -> Tensor:
    """The directions of steps first .. last - 1, [steps, 30]."""
    found = []
    for step in range(first, last):
        losses = torch.rand(4, generator=torch.Generator().manual_seed(step), dtype=torch.float64) + 0.1
        found.append(direction(method, gradients("conflicting", 4, 30, seed=step), losses))
    return torch.stack(found)


def resume(folder: Path) -> None:
    """In the new process: steps 10 .. 19 of every method whose state is in the folder."""
    for file in folder.glob("*.state"):
        method = RESUMED[file.stem]()
        method.load_state_dict(safetensors.torch.load_file(file))
        safetensors.torch.save_file({"directions": run_steps(method, 10, 20)}, file.with_suffix(".resumed"))


@pytest.mark.check
def test_states_survive_a_new_process_bitwise(tmp_path: Path) -> None:
    expected = {}
    for name, make in RESUMED.items():
        try:
            method = make()
        except pytest.skip.Exception:
            continue
        run_steps(method, 0, 10)
        safetensors.torch.save_file(method.state_dict(), tmp_path / f"{name}.state")
        expected[name] = run_steps(method, 10, 20)
    code = f"import pathlib, test_combining; test_combining.resume(pathlib.Path({str(tmp_path)!r}))"
    process = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert len(expected) > len(METHODS)
    for name, directions in expected.items():
        assert torch.equal(safetensors.torch.load_file(tmp_path / f"{name}.resumed")["directions"], directions), name

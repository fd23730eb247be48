"""Combining by bucket: each slice of the parameters' rows has a Gram matrix, a state and weights of its own."""

import pytest
import torch
from torch import Tensor

from multitune.methods.base import GramMethod
from multitune.methods.combiner import Combiner
from multitune.methods.groups import BLOCK, BucketsError, Slice, lay_out
from multitune.methods.torchjd import torchjd
from networks import METHODS, TASKS, Net, autograd_rows, losses

GRAM = ("PCGrad", "GradVac")


def combined(name: str, buckets: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The combined gradients of the second of two steps, by parameter."""
    net = Net(dtype)
    combiner = Combiner(net.shared(), METHODS[name](), buckets=buckets, heads=net.heads.parameters())
    for step in range(2):
        net.zero_grad()
        combiner.backward(losses(net, step), tasks=range(TASKS))
    return {key: weight.grad.clone() for key, weight in net.shared() if weight.grad is not None}


@pytest.mark.parametrize("name", METHODS)
def test_one_bucket_is_the_group(name: str) -> None:
    net = Net()
    combiner = Combiner(net.shared(), METHODS[name](), heads=net.heads.parameters())
    for step in range(2):
        net.zero_grad()
        combiner.backward(losses(net, step), tasks=range(TASKS))
    for key, gradient in combined(name, 1).items():
        torch.testing.assert_close(gradient, net.weight(key).grad, rtol=0, atol=0)


@pytest.mark.parametrize("name", GRAM)
@pytest.mark.parametrize("buckets", [2, 3, 7, 50])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_bucket_is_combined_by_itself(name: str, buckets: int, dtype: torch.dtype) -> None:
    """The literal way: the b-th chunk of each parameter's rows, one after the other, make a Gram matrix."""
    net, method = Net(dtype), METHODS[name]()
    assert isinstance(method, GramMethod)
    method.for_groups(buckets)
    for step in range(2):
        rows = {key: autograd_rows(net, step)[key].double().view(TASKS, *weight.shape) for key, weight in net.shared()}
        heights = {key: -(-all_rows.shape[1] // buckets) for key, all_rows in rows.items()}
        parts = [
            {key: own[:, b * heights[key] : (b + 1) * heights[key]] for key, own in rows.items()}
            for b in range(buckets)
        ]
        grams = [sum(own.flatten(1) @ own.flatten(1).T for own in part.values()) for part in parts]
        weights = method.weights(torch.stack([torch.as_tensor(gram) for gram in grams]))
    found = combined(name, buckets, dtype=dtype)
    for key, gradient in found.items():
        expected = [torch.einsum("t,t...->...", w, part[key]) for w, part in zip(weights, parts, strict=True)]
        bound = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(gradient.double(), torch.cat(expected), rtol=bound, atol=bound)


def test_buckets_stand_beside_groups_and_streaming_methods_take_no_notice() -> None:
    net = Net()
    by_layer = Combiner(net.shared(), METHODS["GradVac"](), groups="all_layer", buckets=3)
    assert by_layer.layout.parts == 3 * len(by_layer.layout.groups) == len(by_layer.state_dict()["method.targets"])
    one, several = (combined("FAMO", buckets) for buckets in (1, 4))
    assert all(torch.equal(one[key], several[key]) for key in one)


def test_long_slices_are_computed_in_blocks() -> None:
    weight = torch.nn.Parameter(torch.zeros(5, 3 * BLOCK, dtype=torch.bfloat16))
    combiner = Combiner([weight], METHODS["PCGrad"](), buckets=2)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(weight.shape, generator=generator).to(torch.bfloat16) - task for task in range(2)]
    combiner.backward([(weight * batch).sum() for batch in batches])
    for part in (slice(0, 3), slice(3, 5)):
        alone = torch.nn.Parameter(weight.detach()[part].clone())
        Combiner([alone], METHODS["PCGrad"]()).backward([(alone * batch[part]).sum() for batch in batches])
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad[part], alone.grad)


@pytest.mark.parametrize("buckets", [0, 51])
def test_more_buckets_than_rows_are_refused(buckets: int) -> None:
    with pytest.raises(BucketsError, match=f"buckets: {buckets} must be from 1 to 50, the rows of the largest"):
        Combiner(Net().shared(), METHODS["PCGrad"](), buckets=buckets)


def test_methods_that_read_gradients_are_refused() -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(BucketsError, match="TorchJDAggregator reads the gradients themselves"):
        Combiner(Net().shared(), torchjd("TrimmedMean", trim_number=1), buckets=2)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_have_all_slices_among_them(ranks: int) -> None:
    net = Net()
    layout = lay_out(net.shared(), lambda name: name.partition(".")[0], ranks, 4)
    own = BLOCK * layout.width // BLOCK // ranks
    taken = torch.zeros(layout.width)
    for rank in range(ranks):
        for part in layout.slices_of(rank):
            assert isinstance(part, Slice)
            taken[rank * own + part.first : rank * own + part.end] += 1
    assert taken.sum() == sum(layout.sizes)
    assert taken.max() == 1

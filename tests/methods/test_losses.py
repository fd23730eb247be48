"""Losses in a list may share a forward pass: which graphs are needed again."""

import torch
from torch import Tensor, nn

from multitune.methods.losses import graphs_needed_again


def test_losses_on_one_forward_pass_need_its_graph_but_for_the_last() -> None:
    hidden = nn.Linear(3, 3)(torch.ones(2, 3)).tanh()
    first, second, third = (hidden.mul(k).sum() for k in (1, 2, 3))
    assert graphs_needed_again([first, second, third]) == {id(first), id(second)}
    assert graphs_needed_again([[first, second], third]) == {id(first), id(second)}
    stacked = torch.stack([first, second]).unbind()
    assert graphs_needed_again(stacked) == {id(stacked[0])}


def test_losses_of_forward_passes_of_their_own_need_none() -> None:
    """Shared parameters are not a shared graph, nor is a graph whose branches meet again."""
    layer = nn.Linear(3, 3)

    def loss(k: int) -> Tensor:
        hidden = layer(torch.ones(2, 3) * k)
        total: Tensor = (hidden + hidden.tanh()).sum()
        return total

    assert graphs_needed_again([loss(1), loss(2), loss(3)]) == set()


def test_what_does_not_exist_yet_is_not_made() -> None:
    def never() -> Tensor:
        raise AssertionError

    assert graphs_needed_again([never, never]) == set()
    assert graphs_needed_again(never() for _ in range(2)) == set()

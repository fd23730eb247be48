"""Random generators by purpose."""

import torch

from multitune.seeds import global_draws


def test_global_generators_begin_at_a_seed_and_then_go_on_as_before() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with global_draws(7):
        drawn = torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(5))
    torch.set_rng_state(before)

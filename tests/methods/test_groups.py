"""Parameter groups by name, and their columns."""

import pytest
import torch
from torch import nn

from multitune.methods.groups import GROUPS, lay_out


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ("whole_model", ["model"]),
        ("enc_dec", ["encoder", "decoder"]),
        ("all_layer", ["encoder.embeddings", "encoder.layer.0", "encoder.layer.1", "decoder", "0"]),
        (
            "all_matrix",
            [
                "encoder.embeddings.words.weight",
                "encoder.layer.0.attention.query.weight",
                "encoder.layer.1.norm.bias",
                "encoder.layer.0.attention.query.bias",
                "decoder.out.weight",
                "0.weight",
            ],
        ),
    ],
)
def test_groups_and_their_columns(groups: str, names: list[str]) -> None:
    sizes = [5000, 30, 2048, 7, 1, 2]
    parameters = [(name, nn.Parameter(torch.zeros(n))) for name, n in zip(all_names(), sizes, strict=True)]
    layout = lay_out(parameters, GROUPS[groups])
    assert list(layout.groups) == names
    assert sum(layout.sizes) == sum(sizes)
    taken = torch.zeros(layout.width)
    for (name, parameter), start in zip(parameters, layout.starts, strict=True):
        taken[start : start + parameter.numel()] += 1
        columns = layout.columns[names.index(GROUPS[groups](name))]
        assert columns.start <= start <= start + parameter.numel() <= columns.stop
    assert taken.max() == 1


def all_names() -> list[str]:
    return [
        "encoder.embeddings.words.weight",
        "encoder.layer.0.attention.query.weight",
        "encoder.layer.1.norm.bias",
        "encoder.layer.0.attention.query.bias",
        "decoder.out.weight",
        "0.weight",
    ]

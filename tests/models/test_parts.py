"""Parts of a model by the names of its weights, and the rates of its layers."""

import pytest
from torch import nn

from multitune.errors import UserError
from multitune.models.parts import parts

BERT = [
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.output.weight",
    "bert.encoder.layer.1.output.weight",
    "bert.encoder.layer.10.output.weight",
    "bert.pooler.dense.weight",
]
BOTH = [
    "model.shared.weight",
    "model.encoder.layers.0.fc1.weight",
    "model.encoder.layers.1.fc1.weight",
    "model.encoder.layer_norm.weight",
    "model.decoder.layers.0.fc1.weight",
    "model.decoder.layers.1.fc1.weight",
    "model.decoder.layers.2.fc1.weight",
]


def model(path: str) -> tuple[nn.Module, nn.Module]:
    """A model that has an embedding at a path, and the embedding."""
    embedding = nn.Embedding(2, 2)
    outer: nn.Module = embedding
    for name in reversed(path.split(".")):
        outer, inner = nn.Module(), outer
        outer.add_module(name, inner)
    return outer, embedding


def test_of_an_encoder() -> None:
    made = parts(*model("bert.embeddings.word_embeddings"), BERT)
    assert set(made.named("encoder")) == set(BERT)
    assert set(made.named("embeddings")) == set(BERT[:2]), "the norm stands beside the words"
    assert list(made.named("layers 0-1")) == BERT[2:4]
    assert list(made.named("layer 10")) == list(made.named("layers 10")) == [BERT[4]]
    shares = made.rate_shares(0.5)
    assert [shares[name] for name in BERT] == [0.5**12, 0.5**12, 0.5**11, 0.5**10, 0.5, 1.0]
    assert set(made.rate_shares(1.0).values()) == {1.0}


def test_of_an_encoder_with_a_decoder() -> None:
    """Its embeddings stand in one module with all layers."""
    made = parts(*model("model.shared"), BOTH)
    assert list(made.named("embeddings")) == BOTH[:1]
    assert list(made.named("layers 0-1")) == BOTH[1:3]
    assert list(made.named("decoder layers 0-2")) == BOTH[4:]
    shares = made.rate_shares(0.5)
    assert [shares[name] for name in BOTH] == [0.0625, 0.25, 0.5, 1.0, 0.125, 0.25, 0.5]


@pytest.mark.parametrize("wanted", ["layers 3", "layers 1-0", "layers", "layers 0-", "decoder layers 3", "head", ""])
def test_what_is_no_part_is_told_with_those_that_are(wanted: str) -> None:
    made = parts(*model("model.shared"), BOTH)
    with pytest.raises(UserError, match=r"it has encoder, embeddings, layers 0-1, decoder layers 0-2$") as raised:
        made.named(wanted)
    assert f"freeze: {wanted!r} is no part of this model" in str(raised.value)


def test_of_a_model_that_sees() -> None:
    """What stands below its layers are its embeddings."""
    made = parts(nn.Module(), None, ["vit.cls_token", "vit.patches.weight", "vit.layers.0.weight", "vit.norm.weight"])
    assert made.named("embeddings") == {"vit.cls_token", "vit.patches.weight"}
    assert list(made.rate_shares(0.5).values()) == [0.25, 0.25, 0.5, 1.0]


def test_all_that_is_below_the_layers_is_embeddings() -> None:
    """Positions and norms that stand elsewhere, as in GPT-2, BART and ELECTRA; a head's decoder is none."""
    network, embedding = model("t.wte")
    network.get_submodule("t").add_module("table", nn.Embedding(2, 2))
    low = ["t.wte.weight", "t.project.weight", "t.encoder.layernorm_embedding.weight", "t.table.weight"]
    high = ["t.encoder.layers.0.weight", "t.encoder.norm.weight", "t.decoder.norm.weight", "lm.decoder.bias"]
    both = ["t.decoder.first.weight", "t.decoder.layers.0.weight"]
    made = parts(network, embedding, [*low[:2], high[0], *low[2:], high[1], *both, *high[2:]])
    assert made.named("embeddings") == {*low, both[0]}
    made = parts(network, embedding, [*low[:2], *high])
    assert made.named("embeddings") == {*low[:2]}, "a head is above all layers"

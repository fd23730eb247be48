"""Models without pretraining: the same from the same data and seed, and wrong uses named."""

from typing import Any

import numpy as np
import pytest
import torch

from multitune import tasks
from multitune.data.corpus import Corpus, Head
from multitune.errors import UserError
from multitune.models import scratch
from multitune.models.encoder import Encoder
from multitune.tasks import Translation

TEXTS = {"de": ("A man (old) sits.", "Ein alter Mann sitzt."), "fr": ("A man (old) sits.", "Un vieil homme est assis.")}
TRAIN = {
    f"en-{code}": [{"source": source, "target": target, "target_language": code}] * 4
    for code, (source, target) in TEXTS.items()
}
CORPUS = Corpus("translation", (), TRAIN, TRAIN, TRAIN)


def built(name: str = "scratch:transformer", corpus: Corpus = CORPUS, **keys: Any) -> Encoder:
    return scratch.build(name, tasks.of(corpus), corpus, **({"layers": 1, "dropout": None, "seed": 0} | keys))


def test_texts_come_back_and_the_target_language_is_one_token() -> None:
    encoder = built()
    (example,) = Translation(()).encode(TRAIN["en-fr"][:1], encoder.tokenizer, 64)
    marked = encoder.tokenizer.convert_ids_to_tokens(example["input_ids"])
    assert marked[0] == "<2fr>"
    assert marked[-1] == encoder.tokenizer.eos_token
    plain = encoder.tokenizer.decode(example["input_ids"], skip_special_tokens=True)
    assert plain == "A man (old) sits."
    assert encoder.tokenizer.decode(example["labels"], skip_special_tokens=True) == "Un vieil homme est assis."


def test_the_same_data_and_seed_make_the_same_model() -> None:
    first, second, other = (dict(built(seed=seed).parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_loss_is_the_cross_entropy_of_the_targets_tokens() -> None:
    encoder, task = built(dropout=0.0), Translation(())
    examples = list(task.encode([TRAIN["en-fr"][0], TRAIN["en-de"][0]], encoder.tokenizer, 64))
    inputs, targets = task.collate(examples, encoder.pad_id)
    output = encoder.model(**encoder.on_device(inputs))
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.to(encoder.device).flatten())
    torch.testing.assert_close(task.loss(output, targets), expected)


def test_tasks_of_images_share_all_but_their_last_layer() -> None:
    records = [{"image": np.zeros((28, 28), dtype=np.uint8), "label": "0"}]
    labels = {"digits": tuple("0123456789"), "letters": ("0", "a")}
    heads = {name: Head("image_classification", own) for name, own in labels.items()}
    corpus = Corpus("image_classification", (), {}, {}, {}, heads=heads)
    one_each = tasks.of(corpus)
    encoder = scratch.build("scratch:convnet", one_each, corpus, layers=1, dropout=None, seed=0)
    assert {name.rpartition(".")[0] for name in encoder.own_heads} == {
        "head0.classifier",
        "head1.classifier",
    }
    for name, own in labels.items():
        examples = list(one_each.task(name).encode(records, encoder.tokenizer, 8))
        inputs = encoder.on_device(one_each.task(name).inputs(examples, encoder.pad_id))
        assert inputs["pixel_values"].shape == (1, 3, 32, 32)
        assert encoder.head(name)(**inputs).logits.shape == (1, len(own))


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("scratch:transfomer", "translation", "did you mean 'scratch:transformer'"),
        ("scratch:transformer", "tagging", "is for Translation, and the data are of the kind tagging"),
    ],
)
def test_mistakes(name: str, kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        built(name, Corpus(kind, (), TRAIN, TRAIN, TRAIN))

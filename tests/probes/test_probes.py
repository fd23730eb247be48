"""Probes against closed forms: quadratics' gradients, known orders of languages, families, untouched models."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from multitune.probes import drift, genealogy, proximity
from multitune.probes.gradient_similarity import cosines, mean_cosine, similarity
from multitune.results.probes import LanguagePair

OPTIMA = torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [3.0, 0.0, 4.0], [-1.0, 0.0, 0.0]])


def quadratics(optima: Tensor) -> tuple[nn.ParameterDict, list[Tensor]]:
    """|x - a|^2 / 2 for the optima a, at x = 0: the gradient of each is -a. x is spread over two layers."""
    x = nn.ParameterDict({"layer_0": nn.Parameter(torch.zeros(2)), "layer_1": nn.Parameter(torch.zeros(1))})
    losses = [(torch.cat([x["layer_0"], x["layer_1"]]) - optimum).square().sum() / 2 for optimum in optima]
    return x, losses


def layers(x: nn.ParameterDict) -> list[tuple[str, nn.Parameter]]:
    return [(f"{name.replace('_', '.')}.weight", x[name]) for name in x]


TAGS = {
    "zh": ("zh-Hans", "zh_CN", "zh-Hant-TW", "zho_Hant", "cmn", "xnli:zh-TW"),
    "he": ("iw", "heb", "IW", "he-IL"),
    "id": ("in", "in_ID", "ind_Latn"),
    "jv": ("jw", "jav"),
    "ro": ("mo", "ron_Latn"),
    "pt": ("pt-BR", "pt_BR", "por_Latn"),
}


@pytest.mark.parametrize("code", TAGS)
def test_every_spelling_of_a_language_has_its_family(code: str) -> None:
    assert {genealogy.code(tag) for tag in (code, *TAGS[code])} == {code}
    assert {genealogy.family(tag) for tag in TAGS[code]} == {genealogy.family(code)}


def test_cosines_of_quadratics_are_those_of_their_optima() -> None:
    x, losses = quadratics(OPTIMA)
    found = similarity("abcd", layers(x), losses)
    expected = [[1, 0, 0.6, -1], [0, 1, 0, 0], [0.6, 0, 1, -0.6], [-1, 0, -0.6, 1]]
    torch.testing.assert_close(cosines(found.gram), torch.tensor(expected, dtype=torch.float64))
    assert found.tasks == ("a", "b", "c", "d")
    assert found.norms.tolist() == pytest.approx([3, 4, 5, 1])
    assert found.losses.tolist() == pytest.approx([4.5, 8, 12.5, 0.5])
    assert mean_cosine(found.gram) == pytest.approx((0 + 0.6 - 1 + 0 + 0 - 0.6) / 6)
    assert all(weight.grad is None for weight in x.values())


def test_cosines_by_layer_take_the_layer_alone() -> None:
    x, losses = quadratics(OPTIMA)
    found = similarity("abcd", layers(x), losses)
    assert list(found.grams) == ["layer.0", "layer.1"]
    assert cosines(found.grams["layer.0"])[0].tolist() == pytest.approx([1, 0, 1, -1])
    assert cosines(found.grams["layer.1"])[2].tolist() == [0, 0, 1, 0], "0 beside a gradient that is zero"


def test_heads_are_left_out() -> None:
    x, losses = quadratics(OPTIMA)
    found = similarity("abcd", layers(x), losses, heads=[x["layer_1"]])
    assert found.norms.tolist() == pytest.approx([3, 4, 3, 1])


def test_gradients_that_are_all_zero_have_no_direction() -> None:
    """As of one text alone, which has no negatives."""
    x, _ = quadratics(OPTIMA)
    found = similarity("ab", layers(x), (0.0 * x["layer_0"].sum() for _ in "ab"))
    assert found.grams == {}
    assert found.norms.tolist() == [0.0, 0.0]
    assert mean_cosine(found.gram) == 0.0


def test_layers_without_gradient_are_left_out() -> None:
    x, losses = quadratics(OPTIMA[[0, 1]])
    found = similarity("ab", layers(x), losses)
    assert list(found.grams) == ["layer.0"]


@pytest.mark.parametrize("seed", range(3))
def test_spearman_is_scipys(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2, 7, 7)).round(1)
    one, other = (matrix + matrix.T for matrix in values)
    upper = np.triu_indices(7, k=1)
    found = proximity.mantel(one, other, permutations=99)
    assert found is not None
    assert found.spearman == pytest.approx(spearmanr(one[upper], other[upper]).statistic)


def test_p_is_that_of_all_permutations() -> None:
    """Five languages have 120 orders: the share of those at least as extreme, which sampling approaches."""
    values = np.random.default_rng(3).normal(size=(2, 5, 5))
    one, other = (matrix + matrix.T for matrix in values)
    upper = np.triu_indices(5, k=1)
    observed = abs(spearmanr(one[upper], other[upper]).statistic)
    orders = [list(order) for order in itertools.permutations(range(5))]
    every = [abs(spearmanr(one[upper], other[np.ix_(order, order)][upper]).statistic) for order in orders]
    exact = np.mean(np.array(every) >= observed - 1e-12)
    found = proximity.mantel(one, other)
    assert found is not None
    assert found.p == pytest.approx(exact, abs=0.02)


LANGUAGES = ["de", "nl", "fr", "es", "hi", "fi", "hu", "tr"]


def test_gradients_that_follow_the_families_are_found_out() -> None:
    distances = np.array([[genealogy.distance(one, other) for other in LANGUAGES] for one in LANGUAGES])
    found = proximity.proximity([*LANGUAGES, "xx"], np.pad(1 - distances, (0, 1)))
    assert found is not None
    assert found.spearman == pytest.approx(-1)
    assert found.p < 0.01
    assert len(found.pairs) == 28, "an unknown language is left out"
    assert found.pairs[0] == LanguagePair(["de", "nl"], distance=0.25, cosine=0.75)


@pytest.mark.parametrize(
    "languages", [["de", "nl", "fr", "xx"], ["fi", "tr", "ja", "ko", "eu"]], ids=["too few", "all unrelated"]
)
def test_proximity_that_cannot_be_told(languages: list[str]) -> None:
    assert proximity.proximity(languages, np.eye(len(languages))) is None


DISTANCES = [
    ("de", "de-CH", 0),
    ("deu_Latn", "xquad:de", 0),
    ("zh-CN", "zho_Hans", 0),
    ("de", "nl", 0.25),
    ("de", "sv", 0.5),
    ("de", "hi", 0.75),
    ("hi", "fa", 0.5),
    ("fi", "hu", 2 / 3),
    ("fi", "de", 1),
    ("eu", "es", 1),
    ("de", "xx", None),
]


@pytest.mark.parametrize(("one", "other", "expected"), DISTANCES)
def test_distances(one: str, other: str, expected: float | None) -> None:
    assert genealogy.distance(one, other) == (None if expected is None else pytest.approx(expected))
    assert genealogy.distance(other, one) == genealogy.distance(one, other)


def test_relatives_stand_side_by_side() -> None:
    shuffled = ["xx", "tr", "de", "fi", "hi", "nl", "hu", "ur"]
    assert genealogy.by_family(shuffled) == ["de", "nl", "hi", "ur", "tr", "fi", "hu", "xx"]
    assert [genealogy.family(language) for language in ("de", "hu", "xx")] == ["Indo-European", "Uralic", None]


def test_the_table_of_languages_is_sound() -> None:
    rows = [
        line.split("\t")
        for line in Path(genealogy.__file__).with_name("languages.tsv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    codes = [code for row in rows for code in {row[0], *row[1].split()}]
    assert len(rows) >= 100
    assert len(codes) == len(set(codes)), "no code is given twice"
    assert len({row[2] for row in rows}) == len(rows)
    assert all(len(row) == 5 and all(row) for row in rows)


def test_drift_by_layer() -> None:
    moved = {
        "e.layer.0.a.weight": 3.0,
        "e.layer.0.b.weight": 4.0,
        "e.layer.1.a.weight": 1.0,
        "e.embeddings.norm.weight": 0.5,
    }
    assert drift.by_layer(moved) == {"e.layer.0": 5.0, "e.layer.1": 1.0, "e.embeddings": 0.5}

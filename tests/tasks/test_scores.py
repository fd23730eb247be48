"""Scores of every kind of task: against the libraries that define them, by hand, and of resamples."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sacrebleu import corpus_bleu, corpus_chrf
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support
from transformers.modeling_outputs import TokenClassifierOutput

from multitune.tasks import TASKS, CausalLM, Classification, ImageClassification, PosTagging, Regression, Translation
from multitune.tasks.regression import ranks

TRANSLATIONS = ["a cat sat here", "the dog runs, it is old", "no", "a cat sat on the old mat", ""]
REFERENCES = ["a cat sits here", "the dog runs: it is old", "no", "the cat sat on the mat", "nothing"]

Rows = NDArray[np.float64]


def random_labels(draw: np.random.Generator) -> Rows:
    return draw.integers(0, 3, (40, 2)).astype(np.float64)


def random_numbers(draw: np.random.Generator) -> Rows:
    return np.stack([draw.integers(0, 6, 40) / 2, draw.normal(size=40)], axis=-1)


def random_counts(columns: int) -> Callable[[np.random.Generator], Rows]:
    return lambda draw: draw.integers(1, 9, (40, columns)).astype(np.float64)


def random_shares(draw: np.random.Generator) -> Rows:
    return draw.random((40, 2))


def random_translations(draw: np.random.Generator) -> Rows:
    return Translation(()).all_statistics([{"target": text} for text in REFERENCES * 8], TRANSLATIONS * 8)


def random_answers(draw: np.random.Generator) -> Rows:
    """Nats, tokens, bytes and exact match of answers, then what chrF is made of."""
    counts = draw.integers(1, 9, (40, 3 + 1)).astype(np.float64)
    texts = [{"prompt": "a", "completion": text} for text in REFERENCES * 8]
    said = [{"answer": text, "nats": 1.0, "tokens": 1, "right": 1, "bytes": 1} for text in TRANSLATIONS * 8]
    return np.concatenate([counts, CausalLM(()).all_statistics(texts, said)[:, 4:]], axis=1)


def random_label_lists(draw: np.random.Generator) -> Rows:
    """Three labels, true or predicted, and labels that the model lacks."""
    return np.concatenate([draw.integers(0, 4, (40, 3)), draw.integers(0, 2, (40, 1))], axis=1).astype(np.float64)


def random_places(draw: np.random.Generator) -> Rows:
    places = draw.integers(1, 5, 40)
    return np.stack([places == 1, 1 / places], axis=-1).astype(np.float64)


ROWS = {
    "causal_lm": random_answers,
    "classification": random_labels,
    "image_classification": random_labels,
    "masked_language_modelling": random_counts(3),
    "multi_label": random_label_lists,
    "pos_tagging": random_counts(2),
    "question_answering": random_shares,
    "ranking": random_places,
    "regression": random_numbers,
    "tagging": random_counts(3),
    "translation": random_translations,
}


@pytest.mark.parametrize("kind", TASKS)
def test_scores_of_a_resample_are_those_of_its_records_written_out(kind: str) -> None:
    draw = np.random.default_rng(0)
    rows, task = ROWS[kind](draw), TASKS[kind](())
    counts = draw.multinomial(40, np.full(40, 1 / 40), size=5).astype(np.float64)
    together = task.scores(rows, counts)
    for number, times in enumerate(counts):
        alone = task.score_rows(np.repeat(rows, times.astype(int), axis=0))
        assert {metric: values[number] for metric, values in together.items()} == pytest.approx(alone)


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_accuracy_macro_f1_and_matthews_are_scikit_learns(labels: int) -> None:
    names = [f"label {number}" for number in range(labels)]
    draw = np.random.default_rng(labels)
    true, guesses = draw.integers(0, labels, (2, 50))
    found = np.where(draw.random(50) < 0.5, true, guesses)
    records = [{"text": "", "label": names[number]} for number in true]
    scores = Classification(names).score(records, [names[number] for number in found])
    assert scores == {
        "accuracy": pytest.approx(100 * accuracy_score(true, found)),
        "macro_f1": pytest.approx(100 * f1_score(true, found, average="macro")),
        "matthews": pytest.approx(100 * matthews_corrcoef(true, found)),
    }


@pytest.mark.parametrize("kind", [Classification, ImageClassification])
def test_scores_by_class_are_scikit_learns(kind: type[Classification | ImageClassification]) -> None:
    names = ["often", "seldom", "never right", "never true", "neither"]
    true = np.array([0] * 30 + [1] * 5 + [2] * 3)
    found = np.array([0] * 25 + [1] * 5 + [1, 1, 0, 3, 0] + [0, 1, 3])
    task = kind(names)
    rows = task.all_statistics([{"label": names[k]} for k in true], [names[k] for k in found])
    by_class = task.by_class(rows)
    assert list(by_class) == names[:4], "a label that is neither met nor predicted has no scores"
    precision, recall, f1, examples = precision_recall_fscore_support(true, found, zero_division=0)
    for k, scores in enumerate(by_class.values()):
        assert scores == {
            "examples": examples[k],
            "precision": pytest.approx(100 * precision[k]),
            "recall": pytest.approx(100 * recall[k]),
            "f1": pytest.approx(100 * f1[k]),
        }
    assert task.score_rows(rows)["macro_f1"] == pytest.approx(np.mean([scores["f1"] for scores in by_class.values()]))


@pytest.mark.parametrize("ties", [1, 10])
def test_correlations_are_scipys(ties: int) -> None:
    draw = np.random.default_rng(0)
    true = draw.integers(0, 6, 60) / 2
    found = np.round(true + draw.normal(size=60) * ties) / ties
    records = [{"text": "", "label": float(number)} for number in true]
    assert Regression(()).score(records, found.tolist()) == {
        "pearson": pytest.approx(100 * pearsonr(true, found).statistic),
        "spearman": pytest.approx(100 * spearmanr(true, found).statistic),
    }


def test_ranks_by_hand() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0])
    assert ranks(values, np.ones(4)).tolist() == [3.5, 1.0, 3.5, 2.0]
    twice_the_first = ranks(values, np.array([2.0, 1.0, 1.0, 0.0]))
    assert twice_the_first[[0, 1, 2]].tolist() == [3.0, 1.0, 3.0]


def test_correlations_with_a_constant_are_zero() -> None:
    records = [{"text": "", "label": number / 10} for number in range(7)]
    assert Regression(()).score(records, [0.1] * 7) == {"pearson": 0.0, "spearman": 0.0}
    always = Classification(("no", "yes")).score([{"label": "yes"}, {"label": "no"}], ["yes", "yes"])
    assert always == {"accuracy": 50.0, "macro_f1": pytest.approx(100 / 3), "matthews": 0.0}


def test_accuracy_of_tags_counts_words_not_sentences() -> None:
    records = [{"tags": ["NOUN"] * 9}, {"tags": ["VERB"]}]
    assert PosTagging(("NOUN", "VERB")).score(records, [["NOUN"] * 9, ["_"]]) == {"accuracy": 90.0}


@pytest.mark.parametrize("labels", [("NOUN", "_"), ("NOUN",)], ids=["a label", "unknown"])
def test_a_token_that_is_not_read_is_wrong_whatever_its_tag(labels: tuple[str, ...]) -> None:
    """Treebanks have _ where a column says nothing, as of most words in FEATS."""
    task = PosTagging(labels)
    ((*_, unread),) = task.decode(TokenClassifierOutput(logits=torch.zeros(1, 1, 2)), [{"firsts": [0, -1]}])
    record = {"tokens": ["a", "b"], "tags": ["NOUN", "_"]}
    assert task.score([record], [["NOUN", unread]]) == {"accuracy": 50.0}
    assert task.shown(record, ["NOUN", unread]).right is False


@pytest.mark.parametrize("language", ["de", "zh", None])
def test_translations_are_scored_as_sacrebleu_does(language: str | None) -> None:
    marked = {} if language is None else {"target_language": language}
    task = Translation(())
    scores = task.score([{"target": text, **marked} for text in REFERENCES], TRANSLATIONS)
    tokenizer = "zh" if language == "zh" else "13a"
    assert scores == {
        "bleu": pytest.approx(corpus_bleu(TRANSLATIONS, [REFERENCES], tokenize=tokenizer).score),
        "chrf": pytest.approx(corpus_chrf(TRANSLATIONS, [REFERENCES]).score),
    }
    named = "bleu" if language is None else f"bleu {language}"
    signatures = task.versions()
    assert set(signatures) == {named, "chrf"}
    assert signatures[named].startswith(f"nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:")


@pytest.mark.parametrize(
    ("language", "package", "words"),
    [("ja", "MeCab", "ja-mecab"), ("jpn_Jpan", "MeCab", "ja-mecab"), ("ko", "mecab_ko", "ko-mecab")],
)
def test_a_language_whose_words_need_another_package_is_scored_by_characters(
    language: str, package: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = Translation(())
    task.score([{"target": "가나", "target_language": language}] * 2, ["가"] * 2)
    missing = find_spec(package) is None
    assert f"tok:{'char' if missing else words}" in task.versions()[f"bleu {language}"]
    assert caplog.text.count("counts characters: words need pip install 'sacrebleu[") == missing


@pytest.mark.parametrize("language", ["zh", "zh-CN", "zh_TW", "zho_Hans", "yue"])
def test_chinese_is_split_into_characters_whatever_its_code(language: str) -> None:
    task = Translation(())
    task.score([{"target": "狗在跑", "target_language": language}], ["狗"])
    assert "tok:zh" in task.versions()[f"bleu {language}"]

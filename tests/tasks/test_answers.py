"""Exact match and F1 of answers: by hand in seven scripts and more, and against torchmetrics."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitune.tasks import QuestionAnswering
from multitune.tasks.answers import exact_and_f1, words

WORDS = ["The", "an", "cat,", "cat", "Dog.", "dog-Москва", "七年", "سبع", "..."]

HAND_MADE = [
    # prediction, answers, MLQA's language, exact match, F1
    ("The Eiffel Tower!", ["eiffel tower"], None, 1, 1),
    ("the old Eiffel Tower", ["An Eiffel-Tower", "Eiffel Tower in Paris"], None, 0, 2 * 2 / (3 + 4)),
    ("in 1889", ["1889", "in the year 1889"], None, 0, 2 * 2 / (2 + 3)),
    ("Paris", ["Rome"], None, 0, 0),
    ("в Москве", ["Москве"], None, 0, 2 / 3),
    ("«Москва»", ["Москва"], None, 0, 0),  # SQuAD's punctuation is ASCII's
    ("سبع سنوات", ["سبع"], None, 0, 2 / 3),
    ("सात साल", ["सात साल।"], None, 0, 1 / 2),
    ("ఏడు సంవత్సరాలు", ["ఏడు"], None, 0, 2 / 3),
    ("กรุงเทพ", ["กรุงเทพ"], None, 1, 1),
    ("1901년부터", ["1901년"], None, 0, 0),
    ("七年", ["七年战争"], None, 0, 0),  # SQuAD has no words in Chinese but those between spaces
    ("七年", ["七年战争"], "zh", 0, 2 * 2 / (2 + 4)),
    ("《七年》 BBC", ["七年BBC"], "zh", 1, 1),
    ("सात साल", ["सात साल।"], "hi", 1, 1),
    ("المدينة", ["مدينة"], "ar", 1, 1),
    ("Die „Zauberflöte“", ["der Zauberflöte"], "de", 1, 1),
    ("¿El gato?", ["un gato"], "es", 1, 1),
    ("những con mèo", ["con mèo"], "vi", 1, 1),
    ("the cat – a dog", ["cat dog"], "en", 1, 1),
    ("the cat – a dog", ["cat dog"], None, 0, 2 * 2 / (3 + 2)),
    ("", [], None, 1, 1),
    ("Paris", [], None, 0, 0),
    ("", ["Paris"], None, 0, 0),
    ("the", ["a"], None, 1, 0),  # the published script's, which counts words in common
]


@pytest.mark.parametrize(("prediction", "answers", "mlqa", "exact", "f1"), HAND_MADE)
def test_by_hand(prediction: str, answers: list[str], mlqa: str | None, exact: float, f1: float) -> None:
    assert exact_and_f1(prediction, answers, mlqa) == pytest.approx((exact, f1))


text = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join).filter(words)  # without words the scripts differ


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(text, text, text), min_size=1, max_size=4))
def test_scores_are_torchmetrics(questions: list[tuple[str, str, str]]) -> None:
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    answers = [{"text": list(true), "answer_start": [0, 0]} for _, *true in questions]
    expected = squad(
        [{"prediction_text": found, "id": str(n)} for n, (found, *_) in enumerate(questions)],
        [{"answers": answer, "id": str(n)} for n, answer in enumerate(answers)],
    )
    records = [{"answers": answer} for answer in answers]
    scores = QuestionAnswering(()).score(records, [{"text": found} for found, *_ in questions])
    assert torch.tensor([scores["f1"], scores["exact_match"]]) == pytest.approx(
        torch.stack([expected["f1"], expected["exact_match"]]), rel=1e-5
    )


def test_a_language_decides_the_normalisation_of_its_records() -> None:
    record = {"answers": {"text": ["七年战争"]}}
    found = [{"text": "七年战"}] * 2
    rows = QuestionAnswering(()).all_statistics([record, record | {"mlqa_language": "zh"}], found)
    assert rows.tolist() == [[0, 0], [0, pytest.approx(6 / 7)]]

"""Exact match and F1 of an answer, as the official scripts of SQuAD 1.1, SQuAD 2.0 and MLQA define them.

TyDiQA-GoldP and XQuAD are scored with SQuAD's script. MLQA's normalises by language: its articles, punctuation by
Unicode category, Chinese split into characters (Lewis et al. 2020, arXiv 1910.07475).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

SQUAD_ARTICLES = re.compile(r"\b(a|an|the)\b")
SQUAD_PUNCTUATION = str.maketrans("", "", string.punctuation)

MLQA_ARTICLES = {
    "ar": re.compile(r"\sال^|ال"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "en": SQUAD_ARTICLES,
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "hi": None,
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "zh": None,
}
"""What each of MLQA's languages leaves out; the Arabic pattern is the script's, whose first half never matches."""

CHINESE = re.compile(r"([\u4e00-\u9fa5])")


def words(text: str, mlqa: str | None = None) -> list[str]:
    """The words of an answer that count: lower case, without punctuation and articles.

    Args:
        mlqa: the answer's language, for MLQA's normalisation; None takes SQuAD's.
    """
    if mlqa is None:
        return SQUAD_ARTICLES.sub(" ", text.lower().translate(SQUAD_PUNCTUATION)).split()
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    articles = MLQA_ARTICLES[mlqa]
    without = kept if articles is None else articles.sub(" ", kept)
    return (CHINESE.sub(r" \1 ", without) if mlqa == "zh" else without).split()


def exact_and_f1(prediction: str, answers: Sequence[str], mlqa: str | None = None) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 of words (0 to 1), each the best over the answers.

    Without answers the question has none: both are 1 where the prediction has no words, as in SQuAD 2.0.
    """
    predicted = words(prediction, mlqa)
    if not answers:
        return float(not predicted), float(not predicted)
    true = [words(answer, mlqa) for answer in answers]
    return max(float(predicted == answer) for answer in true), max(_f1(predicted, answer) for answer in true)


def _f1(predicted: Sequence[str], true: Sequence[str]) -> float:
    """Twice the words in both over all words; 0 where either has none, as in SQuAD 1.1."""
    both = sum((Counter(predicted) & Counter(true)).values())
    return 2 * both / (len(predicted) + len(true)) if both else 0.0


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")

"""Translation with an encoder-decoder, scored by sacreBLEU and chrF."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import TRANSLATION
from multitune.data.kind import Text
from multitune.data.languages import language
from multitune.results.shown import Shown
from multitune.tasks.generation import generating, greedy
from multitune.tasks.language_marks import LanguageMarks
from multitune.tasks.task import IGNORED, Example, Inputs, Task, padded_rows, rows_of, together

log = logging.getLogger(__name__)

TOKENIZERS = {"zho": ("zh", "zh"), "yue": ("zh", "zh"), "jpn": ("ja-mecab", "ja"), "kor": ("ko-mecab", "ko")}
"""Language -> sacreBLEU's tokenizer, and what sacreBLEU calls the language; all others have 13a."""
LONGER, MORE = 2, 10
"""A translation has at most so many times the tokens of its source text, and so many more."""


@final
class Translation(Task):
    """Records ``{"source": str, "target": str}``; a prediction is a text, decoded greedily.

    A record with ``"target_language": "de"`` is marked as the model wants it (tasks/language_marks.py), so that one
    model translates into several; BLEU splits it into words as sacreBLEU does by default for that language.
    """

    fields = TRANSLATION
    can_divide = can_replay = can_trim = False
    auto_model = AutoModelForSeq2SeqLM
    pipeline_tag = "translation"
    metric = "bleu"
    predicted = ("target",)

    @classmethod
    def texts(cls, record: Record) -> tuple[Text, ...]:
        return (record["source"],)

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._bleu: dict[str, BLEU] = {}
        self._chrf = CHRF()

    def stand_in(self, record: Record) -> Record:
        return record | {"target": record["source"]}

    def configure(self, config: PretrainedConfig) -> None:
        """Leave the configuration as it is: the outputs are the vocabulary."""

    @classmethod
    def labels_in(cls, config: PretrainedConfig) -> tuple[str, ...]:
        return ()

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        cut = {"truncation": True, "max_length": max_length}
        marks = LanguageMarks(tokenizer)
        for some in together(records):
            sources = rows_of(tokenizer([marks.source_text(record) for record in some], **cut))
            targets = tokenizer(text_target=[record["target"] for record in some], **cut)["input_ids"]
            for record, source, target in zip(some, sources, targets, strict=True):
                labels = marks.target_ids(record, target)
                own = {"input_ids": marks.source_ids(record, source["input_ids"])}
                yield source | own | {"labels": labels, "start": marks.start(labels)}

    def collate(self, examples: Sequence[Example], pad_id: int) -> tuple[Inputs, Tensor]:
        """The model gets the labels too: it knows how its decoder wants them shifted, but for marks of languages."""
        inputs, targets = super().collate(examples, pad_id)
        inputs["labels"] = targets
        if examples[0]["start"] >= 0:
            shifted = [[example["start"], *example["labels"][:-1]] for example in examples]
            inputs["decoder_input_ids"] = padded_rows(shifted, pad_id)
        return inputs, targets

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return padded_rows([example["labels"] for example in examples], IGNORED)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        loss: Tensor = output.loss
        return loss

    def forward(self, model: PreTrainedModel, inputs: Inputs, examples: Sequence[Example]) -> Tensor:
        """Token ids of translations, [examples, length]; the decoder's start and the mark of a language are given."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        given = _given(model, inputs.get("decoder_input_ids"))
        with generating(model, greedy(model, most=_room(ids.shape[1]))):
            tokens = model.generate(input_ids=ids, attention_mask=mask, **given)  # type: ignore[operator]
        assert isinstance(tokens, torch.Tensor)
        return tokens[:, given["decoder_input_ids"].shape[1] if given else 1 :]

    def decode(self, output: Any, examples: Sequence[Example]) -> list[list[int]]:
        """The tokens of each translation, as many as there is room for whatever texts share its batch."""
        rows = zip(output.tolist(), examples, strict=True)
        return [ids[: _room(len(example["input_ids"]))] for ids, example in rows]

    def join(
        self,
        records: Sequence[Record],
        examples: Sequence[Example],
        decoded: Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Any]:
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in decoded]

    def shown(self, record: Record, prediction: Any) -> Shown:
        return Shown(record["source"], record["target"], prediction, right=None)

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        """sacreBLEU's own sufficient statistics: those of BLEU, then those of chrF."""
        metrics = (self._bleu_for(record.get("target_language", "")), self._chrf)
        texts = ([prediction], [[record["target"]]])
        return tuple(float(n) for metric in metrics for n in metric._extract_corpus_statistics(*texts)[0])

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        sums = counts @ rows
        words = BLEU()
        ends = 2 + 2 * words.max_ngram_order  # two lengths, and matches and n-grams of each order
        bleu = [words._compute_score_from_stats(row[:ends]).score for row in _whole_numbers(sums)]
        chrf = [self._chrf._compute_score_from_stats(row[ends:]).score for row in _whole_numbers(sums)]
        return {name: np.reshape(values, sums.shape[:-1]) for name, values in (("bleu", bleu), ("chrf", chrf))}

    def versions(self) -> dict[str, str]:
        """sacreBLEU's signatures of the scores."""
        bleu = {f"bleu {code}".strip(): metric for code, metric in self._bleu.items()}
        return {name: str(metric.get_signature()) for name, metric in (bleu | {"chrf": self._chrf}).items()}

    def _bleu_for(self, code: str) -> BLEU:
        if code not in self._bleu:
            self._bleu[code] = _bleu(code)
        return self._bleu[code]


def _bleu(code: str) -> BLEU:
    """BLEU that splits a language into words; into characters where that needs a package that is missing."""
    known = TOKENIZERS.get(language(code).code)
    if known is None:
        return BLEU()
    name, extra = known
    try:
        return BLEU(trg_lang=extra, tokenize=name)
    except RuntimeError:
        log.warning("BLEU of %s counts characters: words need pip install 'sacrebleu[%s]'", code, extra)
        return BLEU(tokenize="char")


def _room(source_tokens: int) -> int:
    """The most tokens that a translation may have."""
    return LONGER * source_tokens + MORE


def _given(model: PreTrainedModel, decoder_input_ids: Tensor | None) -> dict[str, Any]:
    """What ``generate`` begins with: the decoder's start and the mark, or the mark alone where that is the start."""
    if decoder_input_ids is None:
        return {}
    ends = model.config.eos_token_id
    starts = decoder_input_ids[:, 0].tolist()
    both = starts[0] in (ends if isinstance(ends, list) else [ends])
    marked = {"decoder_input_ids": decoder_input_ids[:, : 1 + both], "decoder_start_token_id": starts}
    return marked | {"forced_bos_token_id": None}


def _whole_numbers(sums: NDArray[np.float64]) -> list[list[int]]:
    rows: list[list[int]] = sums.reshape(-1, sums.shape[-1]).astype(np.int64).tolist()
    return rows

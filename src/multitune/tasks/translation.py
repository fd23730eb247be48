"""Translation with an encoder-decoder, scored by sacreBLEU and chrF."""

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
from multitune.errors import UserError
from multitune.results.shown import Shown
from multitune.tasks.task import IGNORED, Example, Inputs, Task, padded_rows, rows_of, together

LONGEST = 2
"""A translation ends after so many times the tokens of the longest source text in its batch, and ten more."""


@final
class Translation(Task):
    """Records ``{"source": str, "target": str}``; a prediction is a text, decoded greedily.

    A record with ``"target_language": "de"`` is given to the model as ``<2de> source`` (Johnson et al. 2017, arXiv
    1611.04558), so that one model learns to translate into several; BLEU splits it into words as sacreBLEU does by
    default for that language.
    """

    fields = TRANSLATION
    can_divide = can_replay = can_trim = False
    auto_model = AutoModelForSeq2SeqLM
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

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        cut = {"truncation": True, "max_length": max_length}
        for some in together(records):
            sources = rows_of(tokenizer([source_text(record) for record in some], **cut))
            targets = tokenizer(text_target=[record["target"] for record in some], **cut)["input_ids"]
            for source, target in zip(sources, targets, strict=True):
                yield source | {"labels": target}

    def collate(self, examples: Sequence[Example], pad_id: int) -> tuple[Inputs, Tensor]:
        """The model gets the labels too: it knows how its decoder wants them shifted."""
        inputs, targets = super().collate(examples, pad_id)
        return inputs | {"labels": targets}, targets

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return padded_rows([example["labels"] for example in examples], IGNORED)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        loss: Tensor = output.loss
        return loss

    def forward(self, model: PreTrainedModel, inputs: Inputs) -> Tensor:
        """Token ids of translations, [examples, length]."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        tokens = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, num_beams=1, do_sample=False, max_new_tokens=LONGEST * ids.shape[1] + 10
        )
        assert isinstance(tokens, torch.Tensor)
        return tokens

    def decode(self, output: Any, examples: Sequence[Example]) -> list[list[int]]:
        tokens: list[list[int]] = output.tolist()
        return tokens

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

    def _bleu_for(self, language: str) -> BLEU:
        if language not in self._bleu:
            try:
                self._bleu[language] = BLEU(trg_lang=language)
            except RuntimeError as error:  # its tokenizer for the language is a package of its own
                package = f"pip install 'sacrebleu[{language}]'"
                raise UserError(
                    f"data: sacrebleu splits {language!r} into words by a package of its own: {package}"
                ) from error
        return self._bleu[language]


def source_text(record: Record) -> str:
    """The source text with the mark of its target language, where the record names one."""
    language = record.get("target_language")
    return record["source"] if language is None else f"{language_mark(language)} {record['source']}"


def language_mark(language: str) -> str:
    """What stands before a text that is to be translated into ``language``."""
    return f"<2{language}>"


def _whole_numbers(sums: NDArray[np.float64]) -> list[list[int]]:
    rows: list[list[int]] = sums.reshape(-1, sums.shape[-1]).astype(np.int64).tolist()
    return rows

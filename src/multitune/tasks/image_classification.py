"""Image classification: one label an image, scored by accuracy and macro-F1."""

from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from multitune.data.corpus import Record
from multitune.data.kind import Text
from multitune.tasks.classification import OneLabel, label_scores, scores_by_label
from multitune.tasks.task import ClassScores, Example, Inputs

SIZE = 32
"""What an image counts for where the tokens of a batch are counted."""


@final
class ImageClassification(OneLabel):
    """Records ``{"image": uint8 array [height, width] or [height, width, colours], "label": str}``; labels predicted.

    The model's own image processor resizes and normalises, batch by batch; an image without colours is shown as grey.
    """

    tokenised = can_divide = can_replay = can_trim = False
    auto_model = AutoModelForImageClassification
    pipeline_tag = "image-classification"
    auto_processor = AutoImageProcessor
    metric = "accuracy"

    @classmethod
    def texts(cls, record: Record) -> tuple[Text, ...]:
        return ()

    @classmethod
    def content(cls, record: Record) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = record["image"]
        return image

    def encode(self, records: Sequence[Record], processor: BaseImageProcessor, max_length: int) -> Iterator[Example]:
        for record in records:
            image = _coloured(record["image"])
            yield {"image": image, "label": self.number(record["label"]), "processor": processor}

    def sizes(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        return np.full(len(examples), SIZE)

    def inputs(self, examples: Sequence[Example], pad_id: int) -> Inputs:
        images = [example["image"] for example in examples]
        batch = examples[0]["processor"](images=images, return_tensors="pt", input_data_format="channels_last")
        return {"pixel_values": batch["pixel_values"]}

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        scores = label_scores(rows, counts)
        return {"accuracy": scores["accuracy"], "macro_f1": scores["macro_f1"]}

    def by_class(self, rows: NDArray[np.float64]) -> dict[str, ClassScores]:
        return scores_by_label(rows, self.labels)


def _coloured(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[height, width, 3] of an image with or without colours."""
    colours = image if image.ndim == 3 else image[:, :, None]
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours

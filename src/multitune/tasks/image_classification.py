"""Image classification: one label an image, scored by accuracy."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from multitune.data.corpus import Record
from multitune.tasks.classification import label_scores
from multitune.tasks.task import Example, Inputs, Task

SIZE = 32
"""What an image counts for where the tokens of a batch are counted."""


@final
class ImageClassification(Task):
    """Records ``{"image": uint8 array [height, width] or [height, width, colours], "label": str}``; labels predicted.

    The model's own image processor resizes and normalises, batch by batch; an image without colours is shown as grey.
    """

    auto_model = AutoModelForImageClassification
    auto_processor = AutoImageProcessor
    metric = "accuracy"
    can_trim = False

    def encode(self, records: Sequence[Record], processor: BaseImageProcessor, max_length: int) -> list[Example]:
        return [
            {"image": _coloured(record["image"]), "label": self.number(record["label"]), "processor": processor}
            for record in records
        ]

    def size(self, example: Example) -> int:
        return SIZE

    def inputs(self, examples: Sequence[Example], pad_id: int) -> Inputs:
        images = [example["image"] for example in examples]
        batch = examples[0]["processor"](images=images, return_tensors="pt", input_data_format="channels_last")
        return {"pixel_values": batch["pixel_values"]}

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([example["label"] for example in examples])

    def decode(self, output: Any, examples: Sequence[Example]) -> list[str]:
        return [self.labels[number] for number in output.logits.argmax(-1).tolist()]

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        return (float(self.number(record["label"])), float(self.number(prediction)))

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"accuracy": label_scores(rows, counts)["accuracy"]}


def _coloured(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[height, width, 3] of an image with or without colours."""
    colours = image if image.ndim == 3 else image[:, :, None]
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours

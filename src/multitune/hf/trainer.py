"""Hugging Face's Trainer with any of multitune's methods."""

from transformers import Trainer

from multitune.hf.mixin import MultitaskMixin


class MultitaskTrainer(MultitaskMixin, Trainer):
    """``transformers.Trainer`` with a method, batches of one task, and scores by task; see ``MultitaskMixin``."""

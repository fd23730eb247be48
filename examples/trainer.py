"""The Trainer of Hugging Face with Sequential Reptile, on a tiny random BERT and three languages."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments, set_seed

from multitune.hf import MultitaskTrainer

LANGUAGES = {"de": 240, "fi": 120, "sw": 60}


def rows(language: int, size: int) -> list[dict[str, object]]:
    """Each label has six words of its own in each language."""
    labels = torch.randint(3, (size,))
    words = 18 * language + 6 * labels[:, None] + torch.randint(6, (size, 5))
    name = list(LANGUAGES)[language]
    return [
        {"input_ids": w, "labels": y, "language": name} for w, y in zip(words.tolist(), labels.tolist(), strict=True)
    ]


set_seed(0)
train = Dataset.from_list([row for n, size in enumerate(LANGUAGES.values()) for row in rows(n, size)])
dev = {name: Dataset.from_list(rows(n, 30)) for n, name in enumerate(LANGUAGES)}
config = BertConfig(vocab_size=54, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
config.num_labels = 3
settings: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 50,
    "save_steps": 50,
    "metric_for_best_model": "loss",
}

with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=300,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        load_best_model_at_end=True,
        disable_tqdm=True,
        report_to=[],
        use_cpu=True,
        **settings,
    )
    trainer = MultitaskTrainer(
        BertForSequenceClassification(config),
        arguments,
        train_dataset=train,
        eval_dataset=dev,
        task_column="language",  # the first of the two lines
        method="sequential_reptile",  # and the second
    )
    trainer.train()
    scores = trainer.evaluate()
print({name: round(scores[f"eval_{name}_loss"], 4) for name in LANGUAGES})

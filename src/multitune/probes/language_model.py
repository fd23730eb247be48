"""What a causal language model forgot, measured with its own head (Sequential Reptile, Figures 5 and 6).

The pretrained and the tuned model read the same texts: the loss of each in nats a byte, which is comparable between
languages and tokenizers, and how far the tuned distribution of the next token is from the pretrained one. And both
answer the same few prompts that no run trains on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from multitune.evaluation.scoring import predict, token_batches
from multitune.models.encoder import Encoder
from multitune.tasks import CausalLM
from multitune.tasks.causal_lm import NO_END, example_of
from multitune.tasks.conversations import Reader
from multitune.tasks.task import IGNORED, Example, Task

PROMPTS = (
    "What is the capital of France?",
    "How much is seven plus five?",
    "Name three colours.",
    "Say in one sentence why the sky is blue.",
    "Translate into German: Good morning!",
    "Write a short poem about the sea.",
)
"""What both models are asked, whatever the run was about."""
ANSWER = 48
"""Tokens of an answer to them, at most."""
LENGTH = 128
"""Tokens of a text; what is longer is cut."""
TOKENS = 256
"""Tokens at a time, padding included: the logits of one are a megabyte where a vocabulary has 250,000."""
ROWS = 64
"""Rows of logits that are made probabilities at a time."""


@dataclass(frozen=True)
class Change:
    """Two models on the texts of a language.

    Attributes:
        pretrained, tuned: the loss of either in nats a byte.
        divergence: the Kullback-Leibler divergence of the tuned distribution of the next token from the pretrained one,
            KL(pretrained || tuned), in nats; the mean over tokens.
    """

    pretrained: float
    tuned: float
    divergence: float


def changes(pretrained: Encoder, tuned: Encoder, texts: Mapping[str, Sequence[str]]) -> dict[str, Change]:
    """Language -> what became of its texts; in fp32, with the weights that the two hold.

    Languages without a token to predict are left out.
    """
    task, tokenizer = CausalLM(()), tuned.tokenizer
    examples = {k: list(_examples(own, tokenizer, tuned.room_for(LENGTH))) for k, own in texts.items()}
    with pretrained.evaluating(), tuned.evaluating():
        return {k: _change(task, pretrained, tuned, own) for k, own in examples.items() if own}


def answers(encoder: Encoder, prompts: Sequence[str] = PROMPTS) -> list[str]:
    """What the model says greedily to each prompt: as an assistant where its template knows one, else as it goes on."""
    task, tokenizer = CausalLM(()), encoder.tokenizer
    chats = tokenizer.chat_template is not None
    records = [{"messages": task.from_text(own)} if chats else {"prompt": own} for own in prompts]
    encoded = task.encode([task.stand_in(record) for record in records], tokenizer, encoder.room_for(4 * LENGTH))
    examples = [example | {"room": min(ANSWER, example["room"])} for example in encoded]
    sizes = np.array([len(example["input_ids"]) for example in examples])
    model = encoder.numbered(0)
    found = predict(encoder, task, model, examples, sizes, "fp32", lambda: None)
    return [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids, *_ in found]


def _examples(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int) -> Iterator[Example]:
    """Texts as examples whose end is not learnt: chats and pretraining end otherwise, and no byte stands for it."""
    reader = Reader(tokenizer)
    for text in filter(str.strip, texts):
        example = example_of(reader.read({"text": text}).cut(most), NO_END, room=0)
        labels = list(example["labels"])
        if example["input_ids"][-1] == tokenizer.eos_token_id:
            labels[-1] = IGNORED
        if example["bytes"]:
            yield example | {"labels": labels}


def _change(task: Task, pretrained: Encoder, tuned: Encoder, examples: Sequence[Example]) -> Change:
    sums = torch.zeros(3, dtype=torch.float64)
    tokens = 0
    for batch in _batches(examples):
        before, true = _logits(task, pretrained, batch)
        after, _ = _logits(task, tuned, batch)
        rows = zip(before.split(ROWS), after.split(ROWS), true.split(ROWS), strict=True)
        sums += torch.stack([_compared(*own) for own in rows]).sum(0)
        tokens += len(true)
    size = sum(example["bytes"] for example in examples)
    nats, tuned_nats, apart = sums.tolist()
    return Change(nats / size, tuned_nats / size, apart / tokens)


def _compared(before: Tensor, after: Tensor, true: Tensor) -> Tensor:
    """Sums over tokens: nats with either, and the divergence; of logits [tokens, vocabulary]."""
    one, other = before.double().log_softmax(-1), after.double().log_softmax(-1)
    nats = (-own.gather(-1, true[:, None]).sum() for own in (one, other))
    return torch.stack([*nats, (one.exp() * (one - other)).sum()]).cpu()


def _logits(task: Task, encoder: Encoder, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """The logits before learnt tokens, [learnt, vocabulary], and these tokens."""
    model: PreTrainedModel = encoder.numbered(0)
    inputs, targets = task.collate(examples, encoder.pad_id)
    with task.fewer_logits(model, targets):
        logits: Tensor = model(**encoder.on_device(inputs)).logits
    learnt = targets[:, 1:]
    return logits, learnt[learnt != IGNORED].to(logits.device)


def _batches(examples: Sequence[Example]) -> Iterator[list[Example]]:
    sizes = np.array([len(example["input_ids"]) for example in examples])
    return ([examples[row] for row in rows] for rows in token_batches(sizes, TOKENS))

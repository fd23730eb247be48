"""Causal language modelling: chat, prompts with what completes them, and texts, with the model's own head."""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multitune.data.bad import BadRecord
from multitune.data.chat import ANY, ASSISTANT, spoken
from multitune.data.corpus import Record
from multitune.data.kind import Text
from multitune.results.shown import Shown
from multitune.tasks.conversations import Reader, Tokens
from multitune.tasks.generation import generating
from multitune.tasks.packed import packed
from multitune.tasks.task import IGNORED, Example, Inputs, Task, known_labels, logits_at, padded_rows, ratio, sums

log = logging.getLogger(__name__)

NO_END = -1
"""In the place of the token that ends an answer, and behind it."""
ROWS = 256
"""Rows of logits, each a vocabulary long, that are made probabilities at a time."""
STAND_IN = "."
"""In the place of the answer to a new prompt."""
LONGER, MORE = 2, 16
"""An answer that is scored has room for so many times the tokens of the right one, and so many more: a model that has
not learnt to stop repeats itself without end, which takes time and tells nothing."""
THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
"""What some models' templates put before an answer; no part of it."""


@final
class CausalLM(Task):
    """Records ``{"messages": [{"role", "content"}, ...]}``, ``{"prompt", "completion"}`` or ``{"text"}``.

    Of messages all that the assistant says is learnt, of a prompt what completes it, a text as a whole, each with the
    token that ends it. A prediction is ``{"answer", "nats", "tokens", "right", "bytes"}``: what the model says greedily
    in place of the last turn of the assistant, or of the completion (None of a text); the sum of the negative
    log-likelihoods of the learnt tokens in nats; how many these are, how many of them the model would say itself, and
    the bytes that they stand for. The first token of a text is in none of these: nothing predicts it.

    Scores: ``exact_match`` (of JSON objects whatever the order of their keys; of a text the share of tokens that the
    model would say itself) and ``chrf`` of the answers in percent, ``loss`` in nats per learnt token, and
    ``loss_per_byte``, which is comparable between languages and tokenizers.
    """

    fields = ANY
    unlabelled = True
    can_divide = can_trim = False
    can_pack = True
    auto_model = AutoModelForCausalLM
    pipeline_tag = "text-generation"
    metric = "exact_match"
    predicted = ("completion",)

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._chrf = CHRF()

    @classmethod
    def texts(cls, record: Record) -> tuple[Text, ...]:
        if "messages" in record:
            return (spoken(record["messages"]),)
        return (record["prompt"] + record["completion"],) if "prompt" in record else (record["text"],)

    @classmethod
    def content(cls, record: Record) -> str:
        """What is to be answered, so that equal questions come into one split."""
        asked, _ = _asked_and_answer(record)
        return asked

    def configure(self, config: PretrainedConfig) -> None:
        """Leave the configuration as it is: the outputs are the vocabulary."""

    @classmethod
    def labels_in(cls, config: PretrainedConfig) -> tuple[str, ...]:
        return ()

    def from_text(self, text: str) -> Any:
        """A turn of the user."""
        return [{"role": "user", "content": text}]

    def stand_in(self, record: Record) -> Record:
        """Something in the place of the answer, where the prompt ends; a text is continued as a prompt is."""
        if "messages" not in record:
            return {"prompt": record.get("prompt", record.get("text")), "completion": STAND_IN}
        if record["messages"][-1]["role"] == ASSISTANT:
            raise BadRecord("messages end with a turn of the assistant, so that nothing is to be answered")
        return {"messages": [*record["messages"], {"role": ASSISTANT, "content": STAND_IN}]}

    @classmethod
    def tokens(cls, record: Record, tokenizer: PreTrainedTokenizerBase) -> int:
        return len(Reader(tokenizer).read(record).tokens)

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        reader, asked, answers, ended = Reader(tokenizer), 0, 0, 0
        for record in records:
            whole = reader.read(record)
            read = whole.cut(max_length)
            asked += read.prompt < whole.prompt
            answers += len(read.tokens) - read.prompt < len(whole.tokens) - whole.prompt
            end = reader.end_of(whole)
            ended += _says_end(record, tokenizer, end)
            yield example_of(read, end, _room(record, read, max_length))
        if ended:
            log.warning(
                "data: %d of %d answers end with the token that is set behind each, so that they have it twice, and no "
                "answer of the model equals them; leave it out",
                ended,
                len(records),
            )
        _tell(reader, asked, answers, len(records), max_length)

    def stop_after(self, model: PreTrainedModel, examples: Iterable[Example]) -> None:
        """Let a model end its answers as these end, wherever it is loaded: a base model stops at the end of texts."""
        settings, ends = model.generation_config, _ends(model, examples)
        if settings is not None and ends not in ([], [settings.eos_token_id]):
            settings.eos_token_id = ends

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return padded_rows([example["labels"] for example in examples], IGNORED)

    def packed(self, examples: Sequence[Example]) -> tuple[Inputs, Tensor]:
        return packed(examples)

    def fewer_logits(self, model: PreTrainedModel, targets: Tensor) -> AbstractContextManager[None]:
        """A context in which logits are those before learnt tokens, [learnt, vocabulary]."""
        return logits_at(model, _before(targets))

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the learnt tokens of a batch, in nats."""
        logits = output.logits.float()
        return torch.nn.functional.cross_entropy(logits, known_labels(targets[:, 1:], len(logits)))

    def labels_in_loss(self, targets: Tensor) -> int:
        return int((targets[:, 1:] != IGNORED).sum())  # nothing predicts the first token, which texts learn

    def forward(self, model: PreTrainedModel, inputs: Inputs, examples: Sequence[Example]) -> dict[str, Tensor]:
        """``logits`` before learnt tokens, [learnt, vocabulary], and ``answers``, token ids, [examples, length]."""
        with self.fewer_logits(model, self.targets(examples)):
            logits = model(**inputs).logits
        return {"logits": logits, "answers": _answers(model, examples)}

    def decode(self, output: Any, examples: Sequence[Example]) -> list[tuple[list[int], float, int]]:
        """For each example its answer, the nats of its learnt tokens, and how many of them are the likeliest."""
        labels = [np.asarray(example["labels"])[1:] for example in examples]
        true = [torch.from_numpy(own[own != IGNORED].astype(np.int64)) for own in labels]
        nats, right = _scored(output["logits"], torch.cat(true))
        counts = [len(own) for own in true]
        parts = zip(output["answers"].tolist(), nats.split(counts), right.split(counts), examples, strict=True)
        return [
            ([each for each in ids[: example["room"]] if each != NO_END], float(own.sum()), int(hits.sum()))
            for ids, own, hits, example in parts
        ]

    def join(
        self,
        records: Sequence[Record],
        examples: Sequence[Example],
        decoded: Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Any]:
        predictions = []
        for (ids, nats, right), example in zip(decoded, examples, strict=True):
            answer = tokenizer.decode(ids, skip_special_tokens=True) if example["room"] else None
            tokens = int((np.asarray(example["labels"])[1:] != IGNORED).sum())
            own = {"nats": nats, "tokens": tokens, "right": right, "bytes": example["bytes"]}
            predictions.append({"answer": answer} | own)
        parts = zip(records, decoded, examples, strict=True)
        broken = [example for record, (ids, *_), example in parts if _breaks_off(record, ids, example)]
        if broken:
            log.warning(
                "max_length: %d of %d answers break off: prompt and answer together have at most %d tokens",
                len(broken),
                len(records),
                max(example["prompt"] + example["room"] for example in broken),
            )
        return predictions

    def of_new(self, prediction: Any) -> Any:
        return _without_thoughts(prediction["answer"])

    def shown(self, record: Record, prediction: Any) -> Shown:
        asked, answer = _asked_and_answer(record)
        if prediction["answer"] is None:
            guessed = f"{prediction['right']} of {prediction['tokens']} tokens would be its own"
            return Shown(asked, answer, guessed, right=None)
        return Shown(asked, answer, prediction["answer"], _same(prediction["answer"], answer))

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        """Nats, learnt tokens, their bytes, exact match, then sacreBLEU's own statistics of chrF (zeros of a text)."""
        _, reference = _asked_and_answer(record)
        nats, tokens, size = (float(prediction[name]) for name in ("nats", "tokens", "bytes"))
        if prediction["answer"] is None:
            return (nats, tokens, size, prediction["right"] / tokens, *[0.0] * 3 * self._chrf.char_order)
        answer = _without_thoughts(prediction["answer"])
        chrf = self._chrf._extract_corpus_statistics([answer], [[_without_thoughts(reference)]])[0]
        return (nats, tokens, size, float(_same(answer, reference)), *map(float, chrf))

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        nats, tokens, size, exact, *_ = sums(rows, counts)
        scores = {"exact_match": ratio(exact, counts.sum(-1))}
        if rows[:, 4:].any():
            whole = (counts @ rows[:, 4:]).reshape(-1, rows.shape[1] - 4).astype(np.int64).tolist()
            chrf = [self._chrf._compute_score_from_stats(row).score for row in whole]
            scores["chrf"] = np.reshape(chrf, np.shape(nats))
        return scores | {"loss": ratio(nats, tokens) / 100, "loss_per_byte": ratio(nats, size) / 100}

    def versions(self) -> dict[str, str]:
        """sacreBLEU's signature of chrF, where there were answers."""
        return {} if not hasattr(self._chrf, "num_refs") else {"chrf": str(self._chrf.get_signature())}


def _asked_and_answer(record: Record) -> tuple[str, str]:
    """What a record asks, and what the answer is: its last turn, or what completes it; a text is both."""
    if "messages" in record:
        *asked, answer = record["messages"]
        return spoken(asked), answer["content"]
    return (record["prompt"], record["completion"]) if "prompt" in record else (record["text"], record["text"])


def _room(record: Record, read: Tokens, max_length: int) -> int:
    """The most tokens that an answer may have; 0 where there is none to give."""
    if "text" in record:
        return 0
    left, right = max_length - read.prompt, len(read.tokens) - read.prompt
    _, answer = _asked_and_answer(record)
    return left if answer == STAND_IN else min(left, LONGER * right + MORE)


def _says_end(record: Record, tokenizer: PreTrainedTokenizerBase, end: int) -> bool:
    """Whether an answer spells the token that ends it; of a text that is no fault."""
    _, answer = _asked_and_answer(record)
    return "text" not in record and end != NO_END and answer.rstrip().endswith(str(tokenizer.decode([end])))


def _breaks_off(record: Record, ids: Sequence[int], example: Example) -> bool:
    """Whether the answer to a new prompt has all the tokens that there is room for, and no end."""
    _, answer = _asked_and_answer(record)
    return answer == STAND_IN and 0 < example["room"] == len(ids) and ids[-1] != example["end"]


def example_of(read: Tokens, end: int, room: int) -> Example:
    """A record as an example; ``end``: the token that ends its answer; ``room``: the most tokens that one may have."""
    labels = [token.id if token.learnt else IGNORED for token in read.tokens]
    return {
        "input_ids": [token.id for token in read.tokens],
        "labels": [IGNORED, *labels[1:]],
        "prompt": read.prompt,
        "room": room,
        "end": end,
        "bytes": read.learnt_bytes,
    }


def _tell(reader: Reader, asked: int, answers: int, records: int, max_length: int) -> None:
    """Say in a line each what of the records was left out."""
    if asked or answers:
        log.warning(
            "max_length: %d of %d records have more than %d tokens: the beginning of what is asked is cut off (%d), or "
            "the end of the answer or text (%d)",
            max(asked, answers),
            records,
            max_length,
            asked,
            answers,
        )
    if reader.begun:
        log.warning(
            "model: its chat template does not ask for an answer (add_generation_prompt), so that answers are learnt, "
            "and compared, with what it sets before them: %r",
            reader.begun,
        )
    if reader.left_out:
        log.warning(
            "model: its chat template leaves out %d turns, which the model does not see: %s",
            reader.left_out.total(),
            ", ".join(f"{role} {count}" for role, count in reader.left_out.items()),
        )
    if reader.unmarked:
        log.warning(
            "model: %d earlier turns of the assistant are not learnt: its chat template shows them otherwise once "
            "others follow, or cannot ask for a first turn, and does not mark them with {%% generation %%}",
            reader.unmarked,
        )


def _before(targets: Tensor) -> Tensor:
    """Where the next token is learnt, [examples, length]."""
    before = torch.zeros_like(targets, dtype=torch.bool)
    before[:, :-1] = targets[:, 1:] != IGNORED
    return before


def _scored(logits: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of each true token, and whether it is the likeliest, [tokens] each, of logits [tokens, vocabulary]."""
    nats, right = [], []
    for some, own in zip(logits.split(ROWS), true.to(logits.device).split(ROWS), strict=True):
        nats.append(torch.nn.functional.cross_entropy(some.float(), own, reduction="none"))
        right.append(some.argmax(-1) == own)
    return torch.cat(nats).cpu(), torch.cat(right).cpu()


def _answers(model: PreTrainedModel, examples: Sequence[Example]) -> Tensor:
    """What the model says greedily after each prompt, up to its end: ids, [examples, length], filled up with NO_END."""
    ends = _ends(model, examples)
    said: list[list[int]] = [[] for _ in examples]
    rows = [number for number, example in enumerate(examples) if example["room"]]
    while rows:  # once, but for models that have too few positions for the longest prompt and the longest answer
        prompts = [[*examples[row]["input_ids"][: examples[row]["prompt"]], *said[row]] for row in rows]
        most = max(examples[row]["room"] - len(said[row]) for row in rows)
        for row, more in zip(rows, _continued(model, prompts, most, ends), strict=True):
            said[row] += more
        rows = [row for row in rows if len(said[row]) < examples[row]["room"] and said[row][-1] not in ends]
    return padded_rows(said, NO_END)


def _continued(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], most: int, ends: Sequence[int]
) -> list[list[int]]:
    """What follows each prompt up to an end token, padded on the left: at most so many tokens, and positions."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompts))
    if positions is not None and longest < positions:
        most = min(most, positions - longest)
    pad = ends[0] if ends else 0  # masked; and behind an end, where it is cut off
    ids = padded_rows([prompt[::-1] for prompt in prompts], pad).flip(1).to(model.device)
    mask = padded_rows([[1] * len(prompt) for prompt in prompts], 0).flip(1).to(model.device)
    with generating(model, GenerationConfig(max_new_tokens=most, eos_token_id=ends or None, pad_token_id=pad)):
        said = model.generate(input_ids=ids, attention_mask=mask)[:, ids.shape[1] :]  # type: ignore[operator]
    return [_up_to_end(row, ends) for row in said.tolist()]


def _up_to_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    return next((ids[: place + 1] for place, each in enumerate(ids) if each in ends), ids)


def _ends(model: PreTrainedModel, examples: Iterable[Example]) -> list[int]:
    """The tokens after which a model stops: its own, and those that end the answers."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    known = own if isinstance(own, list) else [own]
    return sorted({end for end in known if end is not None} | {example["end"] for example in examples} - {NO_END})


def _without_thoughts(answer: str) -> str:
    thoughts = THOUGHTS.match(answer)
    return answer[thoughts.end() :].lstrip() if thoughts else answer


def _same(answer: str, reference: str) -> bool:
    """Whether two answers are one, but for blanks at their edges and the order of keys in JSON objects."""
    one, other = (_without_thoughts(text).strip() for text in (answer, reference))
    call = _as_call(other)
    return one == other if call is None else _as_call(one) == call


def _as_call(text: str) -> str | None:
    """A JSON object with its keys sorted, those that it has twice too; None where the text is none."""
    if not text.startswith("{"):
        return None
    try:
        return json.dumps(json.loads(text, object_pairs_hook=_in_order))
    except (ValueError, RecursionError):
        return None


def _in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a value that is equal for any order of different keys."""
    return {"pairs": sorted(pairs, key=itemgetter(0))}

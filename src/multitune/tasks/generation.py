"""What decides which text a model generates."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import GenerationConfig, PreTrainedModel

TOKENS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "bad_words_ids",
)
"""Settings that say which tokens begin and end what an encoder-decoder says, and which are none."""


@contextmanager
def generating(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """A context in which these alone decide what is generated, by default the likeliest token each time.

    A model's own would fill them up: Qwen's ``repetition_penalty`` keeps an answer from repeating the question's words,
    BART's ``no_repeat_ngram_size`` a translation from saying three words twice.
    """
    own = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own


def greedy(model: PreTrainedModel, *, most: int) -> GenerationConfig:
    """At most so many tokens, the likeliest each time, between the model's own first and last ones."""
    own = model.generation_config
    return GenerationConfig(max_new_tokens=most, **{name: getattr(own, name, None) for name in TOKENS})

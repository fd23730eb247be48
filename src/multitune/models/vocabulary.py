"""Vocabulary trimming without loss.

A token that the training data never contain has an embedding row without gradient: AdamW leaves it as it is (weight
decay on embeddings must be 0). So training needs only the rows of the tokens that do occur. They are cut out into a
small matrix; the full matrix keeps the pretrained values, gets the trained rows back whenever the model is evaluated
or saved, and every other row stays bit-identical.

Some heads look for special tokens among the inputs: a decoder's classifies by the state of the last token that is no
padding, T5's by that of its end token, BigBird's looks for where the question ends. So the model's configuration, and
what its modules have kept of that, has their row numbers while it trains.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from multitune.errors import UserError
from multitune.models.heads import Heads
from multitune.models.positions import count_from_padding


def is_tied(model: PreTrainedModel | Heads) -> bool:
    """Whether the output layer is the input embedding: then every row has a gradient, and none can be left out."""
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight


class TrimmedVocabulary:
    """The input embedding of a model, reduced to the rows of some tokens while it trains.

    Raises:
        UserError: the model's output layer shares the embedding matrix, so that every row has a gradient.
    """

    def __init__(self, model: PreTrainedModel | Heads, token_ids: Iterable[int]) -> None:
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        # An encoder-decoder's two stacks have a module each, with the one matrix.
        readers = [module for module in model.modules() if getattr(module, "weight", None) is embedding.weight]
        self._readers = [reader for reader in readers if isinstance(reader, nn.Embedding)]
        if is_tied(model) or len(self._readers) < len(readers):
            raise UserError("trim_vocabulary: the output layer of this model trains every row; set it to false")
        self._full: nn.Parameter = embedding.weight  # type: ignore[assignment]
        self._trained = self._full.requires_grad
        self._full.requires_grad_(False)
        padding = embedding.padding_idx
        # Where positions are counted from the padding's number, ids up to it are kept, so that it keeps that.
        kept = [] if padding is None else range(padding + 1) if count_from_padding(model) else [padding]
        self._special = _special_tokens(model, embedding.num_embeddings)
        special = [token for _, _, token in self._special]
        self.token_ids = torch.tensor(sorted({*token_ids, *kept, *special}))
        """The tokens kept, in the full vocabulary's numbers, [rows]."""
        self._row = torch.full((embedding.num_embeddings,), -1)
        self._row[self.token_ids] = torch.arange(len(self.token_ids))
        self._rows = nn.Parameter(self._full.detach()[self.token_ids].clone())
        self._paddings = {self._full: padding, self._rows: None if padding is None else int(self._row[padding])}
        self._use(self._rows)

    def rows(self, token_ids: Tensor) -> Tensor:
        """Token numbers to row numbers of the trimmed matrix, [...] of both."""
        rows = self._row[token_ids]
        assert (rows >= 0).all(), "a token outside the trimmed vocabulary"
        return rows

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch with row numbers for token numbers."""
        return {**inputs, "input_ids": self.rows(inputs["input_ids"])}

    @contextmanager
    def full(self) -> Iterator[None]:
        """Inside, the model has its full matrix with the rows as trained so far, and takes ordinary token ids."""
        with torch.no_grad():
            self._full[self.token_ids.to(self._full.device)] = self._rows
        self._use(self._full)
        try:
            yield
        finally:
            self._use(self._rows)

    def undo(self) -> None:
        """Give the model its full matrix back as it was."""
        self._use(self._full)
        self._full.requires_grad_(self._trained)

    def _use(self, weight: nn.Parameter) -> None:
        for reader in self._readers:
            reader.weight, reader.num_embeddings = weight, len(weight)
            if reader.padding_idx is not None:
                reader.padding_idx = self._paddings[weight]
        for holder, name, token in self._special:
            setattr(holder, name, token if weight is self._full else int(self._row[token]))


def _special_tokens(model: nn.Module, count: int) -> list[tuple[PretrainedConfig | nn.Module, str, int]]:
    """Whatever has numbers of special tokens below ``count``, configurations and modules, and each name and number."""
    models = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    configs = {id(config): config for config in (module.config.get_text_config() for module in models)}
    holders: list[PretrainedConfig | nn.Module] = [*configs.values(), *model.modules()]
    return [
        (holder, name, token)
        for holder in holders
        for name, token in vars(holder).items()
        if name.endswith("_token_id") and isinstance(token, int) and 0 <= token < count
    ]

"""A pretrained encoder with the head of a task: loading, trimming, running, saving as an ordinary model."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from multitune.errors import UserError
from multitune.methods.sharded import divided_as
from multitune.models.device import chosen, sent
from multitune.models.dropout import use_own_layers
from multitune.models.fetching import fetched
from multitune.models.heads import Heads, united
from multitune.models.lora import Adapters
from multitune.models.parts import Parts, parts
from multitune.models.positions import count_from_padding, positions
from multitune.models.pretrained import configuration, load_model
from multitune.models.quiet import quiet
from multitune.models.remembered import Remembered
from multitune.models.room import check_room
from multitune.models.sharding import Sharding, distance, non_finite, of_shards
from multitune.models.shipped import sign
from multitune.models.shipped_vocabulary import ShippedVocabulary
from multitune.models.tokenizers import as_between_calls, load_tokenizer, tell_of_padding
from multitune.models.vocabulary import TrimmedVocabulary, is_tied
from multitune.recipe import Lora
from multitune.tasks import HeadMap
from multitune.tasks.task import Inputs, Processor


class Encoder:
    """A model with its head, its tokenizer, and which of its weights are new.

    Attributes:
        model: the transformers model that trains and ships, or several models with a head each.
        heads: which head each language has.
        tokenizer: its fast tokenizer, or the image processor of a model that sees.
        device: where it runs.
        training_inputs: turns a batch's token ids into those that the model takes while it trains: rows of the trimmed
            matrix.
        pad_id: the padding token, trimmed or not; 0 where there are no tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel | Heads,
        heads: HeadMap,
        tokenizer: Processor,
        new: Collection[str],
        device: torch.device,
    ) -> None:
        self.model, self.heads, self.tokenizer = model, heads, tokenizer
        self.device = device
        self.model.to(self.device)  # type: ignore[arg-type]
        self._train()
        self._new = frozenset(new)
        self.pad_id: int = tokenizer.pad_token_id if isinstance(tokenizer, PreTrainedTokenizerBase) else 0
        assert self.pad_id is not None
        self._positions = positions(self.model)
        self._vocabulary: TrimmedVocabulary | None = None
        self.training_inputs: Callable[[Inputs], Inputs] = lambda inputs: inputs
        self._shipped: ShippedVocabulary | None = None
        self._pretrained: Remembered | None = None
        self._adapters: Adapters | None = None
        self._sharding: Sharding | None = None

    def head(self, language: str) -> PreTrainedModel:
        """The model that predicts for a language."""
        return self.numbered(self.heads.number(language))

    def numbered(self, number: int) -> PreTrainedModel:
        """The model with the head of that number."""
        return self.model.model(number) if isinstance(self.model, Heads) else self.model

    @cached_property
    def tokenizer_hash(self) -> str:
        """A hash of all that decides how the tokenizer encodes a text."""
        own = self.tokenizer
        settings = [own.truncation_side, own.model_input_names, own.split_special_tokens, own.mask_token_id, len(own)]
        settings += [own.chat_template, own.special_tokens_map]
        with as_between_calls(own):
            return hashlib.blake2b(f"{settings}{own.backend_tokenizer.to_str()}".encode()).hexdigest()

    @property
    def own_heads(self) -> list[str]:
        """The names of the weights that one language (or task) alone has."""
        if not isinstance(self.model, Heads):
            return []
        own = {name for number in self.heads.own.values() for name in self.model.own(number)}
        return [name for name, _ in self.parameters() if name in own]

    def trim(self, token_ids: Iterable[int]) -> None:
        """Train only the embedding rows of these tokens and the special ones (see models/vocabulary.py)."""
        self._vocabulary = TrimmedVocabulary(self.model, {*token_ids, *self.tokenizer.all_special_ids})
        self.training_inputs = self._vocabulary.inputs

    def ship_only(self, token_ids: Iterable[int]) -> None:
        """Save the model with these tokens and its tokenizer cut to match (see models/shipped_vocabulary.py).

        Raises:
            UserError: the model or its tokenizer cannot be cut.
        """
        if is_tied(self.model) or not isinstance(getattr(self.model.config, "vocab_size", None), int):
            raise UserError(
                "ship_vocabulary: this model's vocabulary is not its input embedding's alone; set it to full"
            )
        self._shipped = ShippedVocabulary(self.tokenizer, token_ids, keep_padding=count_from_padding(self.model))

    @property
    def embedding_trains(self) -> bool:
        """Whether the matrix of word embeddings trains, whole or trimmed."""
        return self._vocabulary is not None or bool(self.model.get_input_embeddings().weight.requires_grad)

    def parts(self) -> Parts:
        """The parts of what pretraining left and trains."""
        sees = not isinstance(self.tokenizer, PreTrainedTokenizerBase)
        embedding = None if sees else self.model.get_input_embeddings()
        return parts(self.model, embedding, (name for name, _ in self.pretrained_parameters()))

    def freeze(self, names: Iterable[str]) -> None:
        """Leave weights as they are from now on: they have no gradient, no optimizer state and no slow weights.

        Raises:
            UserError: no weight would be left that trains.
        """
        frozen = set(names)
        for name, weight in self.parameters():
            if name in frozen:
                weight.requires_grad_(False)
        if not self.parameters():
            raise UserError("freeze: nothing would be left to train: the model already has a head for this task")

    def adapt(self, lora: Lora, seed: int, *, rounded: bool = False) -> None:
        """Train low-rank adapters (see there) and the head alone from now on; what was frozen gets no adapters.

        Raises:
            UserError: there is no layer to adapt, or none that the recipe names.
        """
        new = [weight for name, weight in self.model.named_parameters() if name in self._new]
        self._adapters, body = Adapters(self.model, lora, new, seed, rounded=rounded), self.model.base_model
        assert isinstance(body, PreTrainedModel)
        use_own_layers(body, self.device)
        self._train()

    @property
    def adapted(self) -> dict[str, str]:
        """The name of each weight of an adapter -> that of the weight that it adapts; empty without adapters."""
        return {} if self._adapters is None else self._adapters.weight_of

    def remember(self) -> None:
        """Keep the weights as they are now, on disk: ``drift`` is measured from here.

        Raises:
            RunError: the disk is full.
        """
        self._pretrained = Remembered(dict(self._measured()))

    def _measured(self) -> list[tuple[str, nn.Parameter]]:
        """The pretrained weights that train themselves; adapters know how far they have led."""
        return [(name, weight) for name, weight in self.pretrained_parameters() if name not in self.adapted]

    def shard(self, device: torch.device) -> None:
        """Divide all weights over the ranks, which run the model on ``device``: the last thing before it trains.

        Raises:
            UserError: several heads share the encoder.
        """
        if isinstance(self.model, Heads):
            raise UserError("shard: works with one head for all languages, without replay; set it to false")
        self.device, self._sharding = device, Sharding(self.model, device)

    def gathered(self, *, here: bool) -> AbstractContextManager[None]:
        """A context in which a sharded model can be saved on ranks with ``here``; all ranks enter together."""
        return nullcontext() if self._sharding is None else self._sharding.gathering(here=here)

    @property
    def _whole(self) -> dict[str, Tensor] | None:
        """The weights to save of a sharded model."""
        return None if self._sharding is None else self._sharding.gathered

    def room_for(self, max_length: int) -> int:
        """``max_length``, or the positions that the model has for tokens, where these are fewer."""
        return max_length if self._positions is None else min(max_length, self._positions)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The weights that train, by name."""
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def pretrained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The weights that train and that pretraining left: all but the head and a pooler that was missing.

        Adapters stand for the weights that they adapt.
        """
        return [(name, weight) for name, weight in self.parameters() if name not in self._new]

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write weights that train into the model, by name; raises ValueError as ``check_weights`` does."""
        self.check_weights(weights)
        with torch.no_grad():
            for name, weight in self.parameters():
                weight.copy_(divided_as(weight, weights[name]))

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Raise ValueError where names, shapes or types are not those of the weights that train."""
        own = {name: (list(weight.shape), weight.dtype) for name, weight in self.parameters()}
        given = {name: (list(weight.shape), weight.dtype) for name, weight in weights.items()}
        for name in own | given:
            if own.get(name) != given.get(name):
                raise ValueError(f"{name} is {given.get(name)}; the model has {own.get(name)}")

    def non_finite_weight(self) -> str | None:
        """The name of a weight that trains and holds a number that is not finite; None where there is none."""
        return non_finite(self.parameters())

    def drift(self) -> float:
        """L2 distance of the pretrained weights from where they were (embedding rows never trained add 0)."""
        return math.hypot(*self.moved().values())

    def moved(self) -> dict[str, float]:
        """L2 distance of each pretrained weight from where it was, by name; of an adapted one, the norm of s B A."""
        assert self._pretrained is not None, "nothing was remembered"
        weights = dict(self._measured())
        norms = [distance(weight, self._pretrained.weight(name)) for name, weight in weights.items()]
        far = (
            dict(zip(weights, of_shards(torch.stack(norms), [*weights.values()]).tolist(), strict=True))
            if norms
            else {}
        )
        return far if self._adapters is None else far | self._adapters.moved()

    def on_device(self, inputs: Inputs) -> Inputs:
        """A batch where the model runs."""
        return {name: sent(tensor, self.device) for name, tensor in inputs.items()}

    def mean_states(self, inputs: Inputs) -> Tensor:
        """The last hidden states of the encoder of text, averaged over each example's tokens: [examples, hidden]."""
        reader: Any = self.model.base_model
        if self.model.config.is_encoder_decoder:
            reader = reader.get_encoder()
        states: Tensor = reader(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return (states * mask).sum(1) / mask.sum(1)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the model is as it ships: full vocabulary, adapters merged, no dropout, no gradient.

        Adapters of a sharded model stay beside its weights, which says the same. All ranks compute the same then.
        """
        self.model.eval()
        try:
            with self._merged(), self._full_vocabulary(), self._cast_once(), torch.no_grad():
                yield
        finally:
            self._train()
            if self._sharding is not None:
                self._sharding.reshard()

    @contextmanager
    def _cast_once(self) -> Iterator[None]:
        """Inside, autocast keeps the bf16 copies of frozen weights, too, as it does of those that train.

        It would make them anew for every batch, and for every token of an answer.
        """
        frozen = [weight for weight in self.model.parameters() if not weight.requires_grad]
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in frozen:
                weight.requires_grad_(False)

    @contextmanager
    def probed(self, token_ids: Iterable[int] | None) -> Iterator[Callable[[Inputs], Inputs]]:
        """Inside, the model is as it ships, with gradients; of the embeddings, those of the rows of ``token_ids``.

        Other rows have none in batches without their tokens, so that nothing is lost, and a gradient stays small. The
        gradients of adapters are their own: they are not merged. Yields what turns a batch's token ids into those
        rows. None for ``token_ids`` leaves all rows their gradient.
        """
        self.model.eval()
        try:
            with self._full_vocabulary():
                if token_ids is None or is_tied(self.model) or not self.embedding_trains:
                    yield lambda inputs: inputs
                else:
                    with self._only_rows({*token_ids, *self.tokenizer.all_special_ids}) as rows:
                        yield rows.inputs
        finally:
            self._train()

    @contextmanager
    def _only_rows(self, token_ids: Iterable[int]) -> Iterator[TrimmedVocabulary]:
        rows = TrimmedVocabulary(self.model, token_ids)
        try:
            yield rows
        finally:
            rows.undo()

    def save(self, folder: Path) -> None:
        """Write an ordinary Hugging Face model with its tokenizer for each head that ships, in the head's folder.

        Of a sharded model within ``gathered``.
        """
        with self._merged():
            for number, place in self._places(folder):
                self._save(number, place)

    def save_adapters(self, folder: Path, base: str) -> None:
        """Write the adapters of the model ``base`` with each head that ships, in its folder, as peft loads them."""
        assert self._adapters is not None, "the model has no adapters"
        for number, place in self._places(folder):
            known = self.model.weights_of(number) if isinstance(self.model, Heads) else None
            self._adapters.save(self.numbered(number), place, base, known, self._whole)

    def _places(self, folder: Path) -> list[tuple[int, Path]]:
        """The number of each head that ships, and where it does."""
        return [(number, folder / place) for number, place in enumerate(self.heads.folders) if place is not None]

    def _save(self, number: int, place: Path) -> None:
        sign(self.numbered(number).config, self.heads.tasks[number])
        with self._full_vocabulary(), quiet():
            weights = self.model.weights_of(number) if isinstance(self.model, Heads) else self._whole
            if self._adapters is not None and weights is not None and self._sharding is not None:
                weights = self._adapters.merged_into(weights)
            self.numbered(number).save_pretrained(place, state_dict=weights)
        with as_between_calls(self.tokenizer):
            self.tokenizer.save_pretrained(place)
        if self._shipped is not None:
            with self._full_vocabulary():
                self._shipped.cut(place, _embedding_name(self.numbered(number)))

    def _train(self) -> None:
        """Training mode, but for batch norms: they keep pretraining's statistics, which no batch of one task has."""
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def _merged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._adapters is None or self._sharding else self._adapters.merged()

    @contextmanager
    def _full_vocabulary(self) -> Iterator[None]:
        if self._vocabulary is None:
            yield
        else:
            with self._vocabulary.full():
                yield


def _embedding_name(model: PreTrainedModel) -> str:
    weight = model.get_input_embeddings().weight
    return next(name for name, one in model.named_parameters() if one is weight)


def load(
    name: str, heads: HeadMap, *, layers: int | None, dropout: float | None, seed: int, device: str = "auto"
) -> Encoder:
    """A pretrained encoder with new heads, in fp32.

    Args:
        layers: keep the first so many encoder layers.
        dropout: probability everywhere while training; None keeps the model's own.
        seed: of the weights that pretraining did not leave; those of a head do not depend on which others there are.
        device: where it runs, as recipes name it.

    Raises:
        UserError: no such device, no such model, no network to fetch it, or fewer layers than asked for.
    """
    where = chosen(device)
    with quiet():
        check_room(name, [configuration(name, task, layers) for task in heads.tasks], heads.tasks, where)
        loaded = [load_model(name, task, layers, dropout, seed) for task in heads.tasks]
    auto_processor = heads.tasks[0].auto_processor
    text = auto_processor is AutoTokenizer
    processor = (
        load_tokenizer(name, [one for one, _ in loaded], words=any(one.split_into_words for one in heads.tasks))
        if text
        else fetched(name, auto_processor.from_pretrained)
    )
    for one, _ in loaded:
        if text:
            tell_of_padding(one, processor)
        use_own_layers(one, where)
    if len(loaded) == 1:
        return Encoder(loaded[0][0], heads, processor, loaded[0][1], where)
    model = united(name, [one for one, _ in loaded])
    new = {model.name_of(number, weight) for number, (_, missing) in enumerate(loaded) for weight in missing}
    # A head that does not ship (the replay's) counts as new: drift and methods leave it aside.
    unshipped = [number for number, folder in enumerate(heads.folders) if folder is None]
    return Encoder(model, heads, processor, new.union(*map(model.own, unshipped)), where)

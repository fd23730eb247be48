"""One encoder under several heads."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.errors import UserError


class Heads(nn.Module):
    """Models with several heads around one encoder. Each is an ordinary Hugging Face model, and is called as one.

    The encoder's weights are named ``shared.``..., those of head n ``head<n>.``... (not ``<n>``: a
    number in a name tells a layer).

    Args:
        models: by the head's number, of one architecture. The encoder that all share is that of a model whose encoder
            has most weights: some kinds of head need a pooler, others come without it.
    """

    shared: PreTrainedModel

    def __init__(self, models: Sequence[PreTrainedModel]) -> None:
        super().__init__()
        self._own = [frozenset(model.state_dict()) for model in models]
        largest = max((model.base_model for model in models), key=_size)
        assert isinstance(largest, PreTrainedModel)
        self.shared = largest
        for model in models:
            setattr(model, model.base_model_prefix, self.shared)
            model.tie_weights()
        for number, model in enumerate(models):
            self.add_module(f"head{number}", model)

    def model(self, number: int) -> PreTrainedModel:
        """The model with a head."""
        model = self.get_submodule(f"head{number}")
        assert isinstance(model, PreTrainedModel)
        return model

    def own(self, number: int) -> list[str]:
        """The names here of the weights that a head has for itself."""
        return [name for name, _ in self.named_parameters() if name.startswith(f"head{number}.")]

    @property
    def config(self) -> Any:
        """The encoder's configuration."""
        return self.shared.config

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder."""
        return self.shared

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's word embeddings."""
        embeddings = self.shared.get_input_embeddings()
        assert isinstance(embeddings, nn.Module)
        return embeddings

    def get_output_embeddings(self) -> None:
        """Several heads have no output layer in common."""

    def weights_of(self, number: int) -> dict[str, Tensor]:
        """The weights that a model with this head alone has, by the names that it knows them by."""
        return {name: weight for name, weight in self.model(number).state_dict().items() if name in self._own[number]}

    def name_of(self, number: int, weight: str) -> str:
        """The name here of a weight that the model with a head knows as ``weight``."""
        prefix = f"{self.model(number).base_model_prefix}."
        return f"shared.{weight.removeprefix(prefix)}" if weight.startswith(prefix) else f"head{number}.{weight}"


def _size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def united(name: str, models: Sequence[PreTrainedModel]) -> Heads:
    """Models of one pretrained encoder, each with another head, as one.

    Raises:
        UserError: transformers has given them encoders of several classes; ``name`` is what recipes call the model.
    """
    bodies = dict.fromkeys(type(model.base_model).__name__ for model in models)
    if len(bodies) > 1:
        raise UserError(
            f"model: {name} reads a text by a {' for one task and by a '.join(bodies)} for another, so that they share "
            "no encoder; choose another model, or leave out replay"
        )
    return Heads(models)

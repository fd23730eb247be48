"""Low-rank adapters on a pretrained model, by peft: the only file that imports it.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685: a weight W acts as W + s B A with
A [rank, in], B [out, rank] and s = alpha / rank. A is random, B is 0 at first, and W stays as it is.
"""

import importlib
import importlib.util
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from multitune.errors import UserError
from multitune.methods.sharded import whole
from multitune.models.heads import Heads
from multitune.models.remembered import Remembered
from multitune.recipe import Lora
from multitune.seeds import global_draws, seeded

NAME = "default"
"""What peft calls the adapter of a model that has one."""
LINEAR = (nn.Linear, Conv1D)
WEIGHTS = "adapter_model.safetensors"
"""The file in which peft looks for an adapter."""


def check(lora: Lora | None) -> None:
    """Make sure that a recipe's adapters can be had.

    Raises:
        UserError: peft is missing.
    """
    if lora is not None and importlib.util.find_spec("peft") is None:
        raise UserError("lora: needs the package peft; pip install 'multitune[lora]'")


def adapted_layers(body: nn.Module, targets: str | Sequence[str], leave_out: Collection[Tensor]) -> list[str]:
    """The names of the linear layers of ``body`` that get adapters.

    Args:
        targets: "all-linear", or names, or the ends of names.
        leave_out: weights that get none, whatever the targets.

    Raises:
        UserError: a target that is no such layer; the message lists the last names of those that there are.
    """
    left_out = {id(weight) for weight in leave_out}
    names = [
        k for k, module in body.named_modules() if isinstance(module, LINEAR) and id(module.weight) not in left_out
    ]
    if not names:
        raise UserError("lora: this model has no pretrained linear layer that may train (freeze leaves none)")
    if isinstance(targets, str):
        return names
    for target in targets:
        if not any(_is_meant(name, target) for name in names):
            there = sorted({name.rpartition(".")[2] for name in names})
            raise UserError(f"lora.targets: {target!r} is no linear layer of this model; it has {', '.join(there)}")
    return [name for name in names if any(_is_meant(name, target) for target in targets)]


def _is_meant(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


class Adapters:
    """The adapters of a model, put into it; all other weights of its body are frozen, but for new ones.

    Args:
        model: with its head, or with several. Its heads train, but one that makes tokens of states.
        lora: the recipe's.
        new: weights that pretraining did not leave.
        seed: of A.
        rounded: keep adapted weights in bf16 while the model trains, as products under autocast have them anyhow: half
            the memory, and no copy for each of them. ``merged`` has them as they were.

    Raises:
        UserError: a target that there is not.
        RunError: the disk is full.
    """

    def __init__(
        self, model: PreTrainedModel | Heads, lora: Lora, new: Collection[Tensor], seed: int, *, rounded: bool = False
    ) -> None:
        self._lora, body = lora, model.base_model
        frozen = [weight for weight in body.parameters() if not weight.requires_grad]
        output = model.get_output_embeddings()  # T5's is in the body, and may be the input's, which must not change
        leave_out = [*new, *frozen, *([] if output is None else output.parameters())]
        self._layers = adapted_layers(body, lora.targets, leave_out)
        _freeze(model, new)
        trains = [weight for weight in body.parameters() if weight.requires_grad]
        one_way = isinstance(body.get_submodule(self._layers[0]), Conv1D)
        with global_draws(seeded(seed, "lora").initial_seed()):
            importlib.import_module("peft").inject_adapter_in_model(self._config(self._layers, one_way), body)
        for weight in trains:
            weight.requires_grad_(True)  # peft froze whatever is no adapter
        self._body, self._trained_in = body, torch.bfloat16 if rounded else None
        self._base = self._remembered() if rounded else None
        for layer in map(self._layer, self._layers if rounded else ()):
            weight = layer.get_base_layer().weight
            weight.data = weight.data.to(self._trained_in)
        path = next(path for path, module in model.named_modules() if module is body)
        self._prefix = f"{path}." if path else ""

    @property
    def weight_of(self) -> dict[str, str]:
        """The name of each A and B in the model -> the name that its W had there."""
        return {
            f"{self._prefix}{layer}.lora_{which}.{NAME}.weight": f"{self._prefix}{layer}.weight"
            for layer in self._layers
            for which in "AB"
        }

    @torch.no_grad()
    def moved(self) -> dict[str, float]:
        """The Frobenius norm of s B A by the name of its W: what a merged weight differs by from W.

        That is s sqrt(tr((B^T B)(A A^T))), in products of rank x rank.
        """
        norms = []
        for layer in map(self._layer, self._layers):
            a, b = (whole(part[NAME].weight).double() for part in (layer.lora_A, layer.lora_B))
            squared = ((b.T @ b) * (a @ a.T)).sum()  # both are symmetric
            norms.append(layer.scaling[NAME] * squared.clamp_min(0.0).sqrt())
        names = (f"{self._prefix}{layer}.weight" for layer in self._layers)
        return dict(zip(names, torch.stack(norms).tolist(), strict=True))

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Inside, the model is one without adapters, whose weights are W + s B A; afterwards W is back, bitwise.

        W is on disk meanwhile, so that memory holds it once.

        Raises:
            RunError: the disk is full.
        """
        layers = {name: self._layer(name) for name in self._layers}
        if self._base is None:
            self._base = self._remembered()
        try:
            for name, layer in layers.items():
                weight = layer.get_base_layer().weight
                if self._trained_in is not None:
                    weight.data = self._base.weight(name).to(weight.device, copy=True)
                _add(layer)
                self._body.set_submodule(name, layer.get_base_layer())
            yield
        finally:
            for name, layer in layers.items():
                self._body.set_submodule(name, layer)
                weight, base = layer.get_base_layer().weight, self._base.weight(name)
                weight.data = (
                    weight.data.copy_(base) if self._trained_in is None else base.to(weight.device, self._trained_in)
                )

    @torch.no_grad()
    def merged_into(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a model without adapters, W + s B A, from those of this one, all by name and whole."""
        plain = {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if ".lora_" not in name}
        for name in self._layers:
            layer, path = self._layer(name), f"{self._prefix}{name}"
            a, b = (weights[f"{path}.lora_{which}.{NAME}.weight"] for which in "AB")
            change = layer.scaling[NAME] * (b @ a)
            key = f"{path}.weight"
            plain[key] = plain[key] + (change.T if isinstance(layer.get_base_layer(), Conv1D) else change)
        return plain

    def save(
        self,
        model: PreTrainedModel,
        folder: Path,
        base: str,
        known: Collection[str] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write adapters and head as ``PeftModel.from_pretrained`` loads them, and peft's Auto classes.

        Args:
            model: with one of the heads.
            folder: a new one.
            base: what the pretrained model is called.
            known: the names of the weights that a model with this head alone has; None: all.
            weights: the model's by name, where it is sharded.
        """
        inside = model.base_model is not model
        layers = [f"{model.base_model_prefix}.{name}" if inside else name for name in self._layers]
        own = {f"{layer}.lora_{which}.{NAME}.weight" for layer in layers for which in "AB"}
        trained = (name for name, weight in model.named_parameters() if weight.requires_grad and name not in own)
        heads = _modules_of(model, [name for name in trained if known is None or name in known])
        config = self._config(layers, isinstance(self._layer(self._layers[0]).get_base_layer(), Conv1D))
        config.modules_to_save = heads or None
        config.base_model_name_or_path, config.inference_mode = base, True
        if model.can_generate():
            config.task_type = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
        else:  # a task_type would let peft choose which modules are heads
            loads = type(model)
            config.auto_mapping = {"base_model_class": loads.__name__, "parent_library": loads.__module__}
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        tensors = {
            f"base_model.model.{name.replace(f'.{NAME}.weight', '.weight')}": (
                weight if weights is None else weights[name]
            )
            .detach()
            .contiguous()
            for name, weight in model.named_parameters()
            if name in own or name.startswith(tuple(f"{head}." for head in heads))
        }
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    def _remembered(self) -> Remembered:
        return Remembered({name: self._layer(name).get_base_layer().weight for name in self._layers})

    def _layer(self, name: str) -> Any:
        return self._body.get_submodule(name)

    def _config(self, layers: Sequence[str], one_way: bool) -> Any:
        """peft's configuration; ``one_way`` says that weights are [in, out]."""
        own = self._lora
        return importlib.import_module("peft").LoraConfig(
            r=own.rank,
            lora_alpha=own.alpha,
            lora_dropout=own.dropout,
            target_modules=list(layers),
            fan_in_fan_out=one_way,
        )


def _freeze(model: PreTrainedModel | Heads, new: Collection[Tensor]) -> None:
    """Freeze the body but for new weights; and the head, too, where it makes tokens of states."""
    kept = {id(weight) for weight in new}
    if model.get_output_embeddings() is None:
        body = {id(weight) for weight in model.base_model.parameters()}
        kept |= {id(weight) for weight in model.parameters() if id(weight) not in body}
    for weight in model.parameters():
        if id(weight) not in kept:
            weight.requires_grad_(False)


@torch.no_grad()
def _add(layer: Any) -> None:
    """W <- W + s B A."""
    weight = layer.get_base_layer().weight
    weight.add_(layer.get_delta_weight(NAME).to(weight.dtype))


def _modules_of(model: nn.Module, names: Collection[str]) -> list[str]:
    """Modules that hold all weights of these names: the largest that hold no others, else those right around them."""
    others = [name for name, _ in model.named_parameters() if name not in names]
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        paths = [".".join(parts[:depth]) for depth in range(1, len(parts))]
        alone = (path for path in paths if not any(other.startswith(f"{path}.") for other in others))
        found[next(alone, paths[-1])] = None
    return list(found)

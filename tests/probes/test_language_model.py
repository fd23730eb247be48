"""Two causal language models on the same texts: losses by hand, the divergence, answers; which texts are read."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import models
from transformers import AutoModelForCausalLM, GPT2Config

from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.probes import language_model, texts
from multitune.tasks import CausalLM, HeadMap
from tiny_causal import make, tokenizer, turns

TEXTS = {"aa": ["light kitchen", "dark hall and so on", "a"], "bb": ["licht küche"]}


def model(folder: Path, moved: float = 0.0) -> Encoder:
    one = encoders.load(str(make(folder)), HeadMap.of_all(CausalLM(())), layers=None, dropout=None, seed=0)
    with torch.no_grad():
        for weight in one.model.parameters():
            weight.add_(moved * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return one


@torch.no_grad()
def by_hand(one: Encoder, text: str) -> torch.Tensor:
    """Log-probabilities after each token of a text but the last, [tokens - 1, vocabulary]."""
    ids = one.tokenizer(text, return_tensors="pt")["input_ids"]
    logits: torch.Tensor = one.numbered(0).eval()(ids).logits
    return logits[0, :-1].double().log_softmax(-1)


def nats(one: Encoder, text: str) -> float:
    true = one.tokenizer(text, return_tensors="pt")["input_ids"][0, 1:]
    return -float(by_hand(one, text).gather(-1, true[:, None]).sum())


def predicted_bytes(one: Encoder, text: str) -> int:
    """Bytes of all tokens but the first; a token's name has a letter for each."""
    return sum(map(len, one.tokenizer.tokenize(text)[1:]))


def test_losses_and_divergence_are_those_of_each_text_alone(tmp_path: Path) -> None:
    """Whatever is padded beside it; the end of a text is not asked for."""
    before, after = model(tmp_path / "before"), model(tmp_path / "after", moved=0.05)
    found = language_model.changes(before, after, TEXTS)
    for language, own in TEXTS.items():
        several = [text for text in own if len(before.tokenizer(text)["input_ids"]) > 1]
        size = sum(predicted_bytes(before, text) for text in several)
        assert found[language].pretrained == pytest.approx(sum(nats(before, t) for t in several) / size, rel=1e-5)
        assert found[language].tuned == pytest.approx(sum(nats(after, t) for t in several) / size, rel=1e-5)
        pairs = [(by_hand(before, text), by_hand(after, text)) for text in several]
        apart = torch.cat([(one.exp() * (one - other)).sum(-1) for one, other in pairs])
        assert found[language].divergence == pytest.approx(float(apart.mean()), rel=1e-4)
        assert found[language].divergence > 0


def test_a_model_that_knows_nothing_loses_as_much_a_byte_in_any_script(tmp_path: Path) -> None:
    """Where each token is a byte and all are alike: the logarithm of their number."""
    one = model(tmp_path)
    vocabulary = {name: number for name, number in one.tokenizer.get_vocab().items() if number < 4 or len(name) == 1}
    bytes_alone: Any = one.tokenizer
    bytes_alone.backend_tokenizer.model = models.BPE(vocabulary, [])
    with torch.no_grad():
        for weight in one.model.parameters():
            weight.zero_()
    found = language_model.changes(one, one, {"de": ["über"], "zh": ["\u4f60\u597d", "\u4f60"], "en": ["so", "a"]})
    each = math.log(one.model.config.vocab_size)
    assert {name: change.pretrained for name, change in found.items()} == pytest.approx(dict.fromkeys(found, each))
    assert found.keys() == {"de", "zh", "en"}


def test_a_long_text_is_cut_to_what_a_model_has_positions_for_and_nobody_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A recipe's ``max_length``, of which a warning would speak, has nothing to do with it."""
    made = tokenizer()
    config = GPT2Config(
        vocab_size=len(made), n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    one = encoders.load(str(tmp_path), HeadMap.of_all(CausalLM(())), layers=None, dropout=None, seed=0)
    text = "licht küche " * 20
    found = language_model.changes(one, one, {"aa": [text]})
    ids: Any = made(text)["input_ids"]
    assert len(ids) > 32
    cut: Any = made.decode(ids[:32])
    assert found == language_model.changes(one, one, {"aa": [cut]})
    assert not caplog.messages


def test_a_model_has_not_moved_from_itself(tmp_path: Path) -> None:
    one = model(tmp_path)
    for change in language_model.changes(one, one, TEXTS).values():
        assert change.pretrained == change.tuned
        assert change.divergence == 0


def test_answers_are_short_and_begin_behind_the_prompt(tmp_path: Path) -> None:
    one = model(tmp_path)
    said = language_model.answers(one)
    assert len(said) == len(language_model.PROMPTS)
    for prompt, own in zip(language_model.PROMPTS, said, strict=True):
        asked: Any = one.tokenizer.apply_chat_template(
            turns(prompt), add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            whole: Any = one.numbered(0)
            alone = whole.generate(**asked, do_sample=False, max_new_tokens=language_model.ANSWER)
        assert own == one.tokenizer.decode(alone[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_names_of_cldr_in_a_runs_languages_and_others() -> None:
    languages = texts.with_others(["deu_Latn", "sw"])
    assert languages[:2] == ["deu_Latn", "sw"]
    assert "de" not in languages
    assert {"en", "zh"} <= set(languages)
    read = texts.from_cldr([*languages, "no language"])
    assert list(read) == languages
    assert any("Deutschland" in text or "Frankreich" in text or "isch" in text for text in read["deu_Latn"])
    assert all(len(own) == 10 for own in read.values())
    assert read == texts.from_cldr([*languages, "no language"])


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


SIB = "index_id\tcategory\ttext\n0\tpolitics\tein Satz\n1\tsports\tnoch einer\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"de.txt": "eins\n\nzwei\n", "xx.txt": "one\n"}, {"de": ["eins", "zwei"], "xx": ["one"]}),
        ({"deu.txt": "eins\n"}, {"de": ["eins"]}),
        ({"deu_Latn/test.tsv": SIB, "fra_Latn/test.tsv": SIB}, {"de": ["ein Satz", "noch einer"]}),
    ],
)
def test_texts_of_a_folder(tmp_path: Path, files: dict[str, str], expected: dict[str, list[str]]) -> None:
    assert texts.from_folder(write(tmp_path, files), ["de", "sw"]) == expected


def test_many_lines_are_a_few_always_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path, {"de.txt": "".join(f"Zeile {n}\n" for n in range(100))})
    chosen = texts.from_folder(folder, ["de"])["de"]
    assert len(chosen) == texts.MOST
    assert chosen == sorted(chosen, key=lambda line: int(line.split()[1]))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, r"--texts: .* has no texts for de; it must hold a file LANGUAGE.txt"),
        ({"deu_Latn/test.tsv": "index_id\tcategory\ttext\n0\tein Satz\n"}, r"test.tsv:2: 2 columns"),
    ],
)
def test_a_folder_without_texts(tmp_path: Path, files: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        texts.from_folder(write(tmp_path, files), ["de"])

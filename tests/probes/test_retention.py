"""Retention: masked tokens against transformers' own loss, retrieval against known answers, untouched encoders."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
)

from builders import real_data, sentences
from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models import masked_lm
from multitune.models.encoder import Encoder
from multitune.probes import drift, pairs, retention
from multitune.probes.pairs import Pairs
from multitune.tasks import HeadMap, Tagging
from multitune.tasks.task import Example

WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
TAGS = ("B-LOC", "B-PER", "I-PER", "O")


def loaded(folder: Path) -> Encoder:
    return encoders.load(str(folder), HeadMap.of_all(Tagging(TAGS)), layers=None, dropout=None, seed=0)


def examples(tokenizer: PreTrainedTokenizerBase, count: int = 10) -> list[Example]:
    texts = [
        " ".join(line.split("\t")[0] for line in block.splitlines())
        for block in sentences("aa", count, seed=5).split("\n\n")
    ]
    return [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]


@torch.no_grad()
def test_masked_lm_loss_of_an_untouched_model_is_transformers_own(
    tiny_lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LM_BATCH", 4)
    tokenizer = loaded(tiny_lm).tokenizer
    model = masked_lm.load(str(tiny_lm), layers=None)
    assert model is not None
    rows = examples(tokenizer)
    state = torch.get_rng_state()
    found = retention.masked_lm_losses(model, tokenizer, {"aa": rows, "bb": rows})
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left as it was"

    own = AutoModelForMaskedLM.from_pretrained(tiny_lm).eval()
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=0)
    batches = [collator(rows[first : first + 4]) for first in (0, 4, 8)]
    labels = torch.cat([batch["labels"].flatten() for batch in batches])
    logits = torch.cat([own(**batch).logits.flatten(0, 1) for batch in batches])
    assert found["aa"] == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-5)
    assert found["bb"] == found["aa"], "the masks are fixed"
    small = retention.masked_lm_losses(model, tokenizer, {"aa": rows[:4]})
    assert small["aa"] == pytest.approx(float(own(**batches[0]).loss), rel=1e-5)


def test_masked_lm_keeps_its_head_under_another_encoder(tiny_lm: Path) -> None:
    encoder = loaded(tiny_lm)
    model = masked_lm.load(str(tiny_lm), layers=None)
    assert model is not None
    rows = {"aa": examples(encoder.tokenizer)}
    before = retention.masked_lm_losses(model, encoder.tokenizer, rows)
    masked_lm.put_in(model, encoder.head("aa"))
    assert retention.masked_lm_losses(model, encoder.tokenizer, rows) == before, "a copied encoder loses nothing"

    head = model.get_parameter("cls.predictions.decoder.weight").clone()
    with torch.no_grad():
        encoder.model.get_parameter(WORD_EMBEDDINGS).mul_(-1)
    masked_lm.put_in(model, encoder.head("aa"))
    assert torch.equal(model.get_parameter(WORD_EMBEDDINGS), encoder.model.get_parameter(WORD_EMBEDDINGS))
    assert torch.equal(model.get_parameter("cls.predictions.decoder.weight"), head)
    assert retention.masked_lm_losses(model, encoder.tokenizer, rows) != before


def test_sentences_without_a_masked_token_tell_nothing(tiny_lm: Path) -> None:
    encoder = loaded(tiny_lm)
    model = masked_lm.load(str(tiny_lm), layers=None)
    assert model is not None
    empty = [{"input_ids": encoder.tokenizer("")["input_ids"]}]
    assert retention.masked_lm_losses(model, encoder.tokenizer, {"aa": empty}) == {}


def test_encoders_without_a_head_have_no_masked_lm(tiny_model: Path) -> None:
    assert masked_lm.load(str(tiny_model), layers=None) is None


WORDS = ["ana", "bela", "coro", "roma", "oslo", "sees the old"]
RETRIEVED = {
    "itself": (WORDS, 100),
    "swapped": (WORDS[::-1], 0),
    "half": ([*WORDS[:3], *WORDS[:2:-1]], 200 / 3),
}


@pytest.mark.parametrize(("translations", "expected"), RETRIEVED.values(), ids=RETRIEVED)
def test_retrieval_with_known_answers(tiny_model: Path, translations: list[str], expected: float) -> None:
    found = retention.retrieval(loaded(tiny_model), {"xx": Pairs(WORDS, translations)})
    assert found == {"xx": pytest.approx(expected)}


def test_retrieval_knows_all_translations_of_a_text(tiny_model: Path) -> None:
    """XQuAD asks some questions twice, in words that a translator may have chosen otherwise the second time."""
    twice = Pairs([*WORDS, WORDS[0], "ana bela"], [*WORDS, "ana bela", "ana bela"])
    assert retention.retrieval(loaded(tiny_model), {"xx": twice}) == {"xx": 100.0}


def test_retrieval_counts_both_directions(tiny_model: Path) -> None:
    """All texts, which have one vector, find the first translation, and each translation the first text."""
    found = retention.retrieval(loaded(tiny_model), {"xx": Pairs(["ana", "ana ", " ana"], ["ana", "bela", "coro"])})
    assert found["xx"] == pytest.approx(100 / 3)


def test_a_mean_pooled_vector_does_not_depend_on_its_batch(tiny_model: Path) -> None:
    encoder = loaded(tiny_model)
    alone = retention.embed(encoder, ["ana"])["ana"]
    beside = retention.embed(encoder, ["ana", "sees the old roma and the coro"])["ana"]
    torch.testing.assert_close(alone, beside)
    assert float(alone.norm()) == pytest.approx(1)


def test_a_copied_model_retrieves_what_the_pretrained_one_does(tmp_path: Path, tiny_model: Path) -> None:
    pretrained = loaded(tiny_model)
    pretrained.save(tmp_path)
    copied = loaded(tmp_path)
    texts = {"xx": Pairs(WORDS, [f"the {word}" for word in WORDS])}
    assert retention.retrieval(copied, texts) == retention.retrieval(pretrained, texts)
    assert drift.total(drift.between(pretrained, copied)) == 0


def test_drift_between_encoders_is_the_known_shift(tmp_path: Path, tiny_model: Path) -> None:
    pretrained, tuned = loaded(tiny_model), loaded(tiny_model)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight.add_(0.5)
    moved = drift.between(pretrained, tuned)
    counts = {name: weight.numel() for name, weight in pretrained.pretrained_parameters()}
    assert drift.total(moved) == pytest.approx(0.5 * sum(counts.values()) ** 0.5)
    layers = drift.by_layer(moved)
    assert list(layers) == ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]
    within = sum(count for name, count in counts.items() if ".layer.1." in name)
    assert layers["bert.encoder.layer.1"] == pytest.approx(0.5 * within**0.5)


@pytest.mark.parametrize("language", ["de", "deu_Latn", "xquad:de", "zh-CN", "yo", "pt-BR"])
def test_pairs_from_cldr_are_told_apart(language: str) -> None:
    found = pairs.from_cldr([language])[language]
    folded = [[name.casefold() for name in side] for side in (found.texts, found.translations)]
    assert pairs.FEWEST_NAMES <= len(found.texts) <= pairs.MOST_NAMES
    assert all(len(side) == len(set(side)) for side in folded)
    assert all(one != other for one, other in zip(*folded, strict=True))
    assert pairs.from_cldr([language])[language] == found


def test_pairs_from_cldr_translate() -> None:
    found = pairs.from_cldr(["de", "en", "xx"])
    assert list(found) == ["de"]
    german = dict(zip(found["de"].texts, found["de"].translations, strict=True))
    known = {"Germany": "Deutschland", "Finland": "Finnland", "Turkish": "Türkisch", "Greece": "Griechenland"}
    assert len(known.items() & german.items()) == len(known.keys() & german.keys()) > 0


def tatoeba(folder: Path, *, lines: int = 2) -> None:
    (folder / "tatoeba.deu-eng.eng").write_text("one\ntwo\n")
    (folder / "tatoeba.deu-eng.deu").write_text("eins\nzwei\ndrei\n"[: 5 * lines])


def sib200(folder: Path, row: str = "7\tnews\tzwei") -> None:
    for name, rows in {"eng_Latn": "7\tnews\ttwo\n8\tnews\tthree\n", "deu_Latn": f"{row}\n"}.items():
        (folder / name).mkdir()
        (folder / name / "test.tsv").write_text(f"index_id\tcategory\ttext\n{rows}")


def test_pairs_from_tatoeba(tmp_path: Path) -> None:
    tatoeba(tmp_path)
    assert pairs.from_folder(tmp_path, ["fi", "xquad:de", "en"]) == {
        "xquad:de": Pairs(["one", "two"], ["eins", "zwei"])
    }


def test_pairs_from_sib200_go_by_number(tmp_path: Path) -> None:
    sib200(tmp_path)
    assert pairs.from_folder(tmp_path, ["en", "de"]) == {"de": Pairs(["two"], ["zwei"])}


def test_files_without_a_pair_in_common_are_none(tmp_path: Path) -> None:
    """Those of another version of the set, whose numbers are others, and empty ones."""
    sib200(tmp_path, row="9\tnews\tzwei")
    (tmp_path / "tatoeba.deu-eng.eng").touch()
    (tmp_path / "tatoeba.deu-eng.deu").touch()
    with pytest.raises(UserError, match=r"--pairs: .* has no pairs for de; it must hold"):
        pairs.from_folder(tmp_path, ["de"])


def test_bad_folders_of_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--pairs: .* has no pairs for de, fi; it must hold Tatoeba's files"):
        pairs.from_folder(tmp_path, ["de", "fi"])
    tatoeba(tmp_path, lines=1)
    with pytest.raises(UserError, match="eng: 2 lines, but its translation has 1"):
        pairs.from_folder(tmp_path, ["de"])


def test_a_bad_row_of_sib200_is_named(tmp_path: Path) -> None:
    sib200(tmp_path, row="7 zwei")
    with pytest.raises(UserError, match=r"deu_Latn/test.tsv:2: 1 columns; there must be three"):
        pairs.from_folder(tmp_path, ["de"])


@pytest.mark.parametrize(("name", "size"), [("tatoeba", 1000), ("sib200", 204), ("xquad", 1190)])
def test_pairs_of_the_real_sets(name: str, size: int) -> None:
    found = pairs.from_folder(real_data(name), ["de", "en", "ar", "zh-CN"])
    assert {language: len(each.texts) for language, each in found.items()} == dict.fromkeys(("de", "ar", "zh-CN"), size)

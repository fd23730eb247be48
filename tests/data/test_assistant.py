"""The offline data set: what a template may say, how templates are split, and that every language reads cleanly."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.data.sets import assistant
from multitune.errors import UserError
from multitune.storage import cache
from multitune.tasks import TASKS

for package in assistant.PACKAGES:
    pytest.importorskip(package, reason="needs pip install 'multitune[offline]'")

from multitune.data.sets import cldr  # noqa: E402 - imports a package that may be missing
from multitune.data.sets.templates import MAX_CHARACTERS, Grammar, parse, tidy  # noqa: E402 - likewise

SIZES = {"per_template": 2, "dev_size": 40, "test_size": 60}
EVERY_SPLIT = ("train", "dev", "test")

GRAMMAR = Grammar(
    rules={"turn": "(turn|switch)", "polite": "[please ]<turn>", "forever": "on <forever>", "maybe": "on[ <maybe>]"},
    lists={
        "color": {"values": [{"in": "red"}, {"in": "(light|dark) blue"}]},
        "percent": {"range": {"from": 0, "to": 100, "step": 50}},
        "empty": {"values": [{"in": "[ ]"}]},
        "duration": {"values": [{"in": "{percent:inner} hours"}]},
        "item": {"wildcard": True},
    },
    words=lambda name: {"item": ["milk", "oat  milk"], "area": ["Kenya"]}[name],
)


@pytest.mark.parametrize(
    ("template", "sentences"),
    [
        ("lights on", {"lights on"}),
        ("lights (on|off|up)", {"lights on", "lights off", "lights up"}),
        ("[the] light[s] on", {"the light on", "the lights on", "light on", "lights on"}),
        ("turn [up|down] [now]", {"turn", "turn up", "turn down", "turn now", "turn up now", "turn down now"}),
        ("(a;b;c)", {"a b c", "a c b", "b a c", "b c a", "c a b", "c b a"}),
        ("go ([now];home) !", {"go now home!", "go home now!", "go home!"}),
        ("<polite> on", {"turn on", "switch on", "please turn on", "please switch on"}),
        ("in {color}", {"in red", "in light blue", "in dark blue"}),
        ("at {percent}%", {"at 0%", "at 50%", "at 100%"}),
        ("at {3..7,2:level}", {"at 3", "at 5", "at 7"}),
        ("buy {item:name}", {"buy milk", "buy oat milk"}),
        ("in {area}", {"in Kenya"}),
        (r"a \(b\)", {"a (b)"}),
        ("l' (eau|huile)", {"l'eau", "l'huile"}),
        ("(开;灯) [吗]", {"开灯", "灯开", "开灯吗", "灯开吗"}),
        ("เปิด [ไฟ] 5", {"เปิด 5", "เปิดไฟ 5"}),
    ],
)
def test_a_template_says_all_it_can_and_nothing_else(template: str, sentences: set[str]) -> None:
    rng = random.Random(0)
    drawn = [GRAMMAR.draw(parse(template), rng) for _ in range(60 * len(sentences))]
    assert {draw[0] for draw in drawn if draw is not None} == sentences


@pytest.mark.parametrize(
    ("template", "slots"),
    [
        (
            "buy [some] {item:name} in {area}",
            {(("name", "milk"), ("area", "Kenya")), (("name", "oat milk"), ("area", "Kenya"))},
        ),
        ("for {duration}", {(("duration", "0 hours"),), (("duration", "50 hours"),), (("duration", "100 hours"),)}),
        ("on {empty} at {percent:level}", {(("level", "0"),), (("level", "50"),), (("level", "100"),)}),
        ("( {area};now )", {(("area", "Kenya"),)}),
    ],
)
def test_slots_span_their_own_words(template: str, slots: set[tuple[tuple[str, str], ...]]) -> None:
    rng = random.Random(0)
    found = set()
    for _ in range(100):
        draw = GRAMMAR.draw(parse(template), rng)
        assert draw is not None
        found.add(tuple((name, draw[0][start:end]) for name, start, end in draw[1]))
    assert found == slots


@pytest.mark.parametrize("template", ["<forever>", "[ ]", "x", "word " * 50])
def test_endless_empty_and_overlong_sentences_are_given_up(template: str) -> None:
    assert GRAMMAR.draw(parse(template), random.Random(0)) is None


def test_a_rule_that_may_call_itself_ends() -> None:
    rng = random.Random(0)
    drawn = [GRAMMAR.draw(parse("<maybe>"), rng) for _ in range(50)]
    assert {draw[0] for draw in drawn if draw is not None} >= {"on", "on on"}


@pytest.mark.parametrize(
    ("raw", "spans", "tidied"),
    [
        ("  a   b ", [(4, 7)], ("a b", ["b"])),
        ("a\u00a0b\tc", [(2, 5)], ("a b c", ["b c"])),
        ("把 灯 打开", [(2, 3)], ("把灯打开", ["灯"])),
        ("set to 5 , now", [(7, 9)], ("set to 5, now", ["5"])),
        ("no   words", [(2, 4)], ("no words", [])),
    ],
)
def test_tidy_moves_the_spans_along(raw: str, spans: list[tuple[int, int]], tidied: tuple[str, list[str]]) -> None:
    text, moved = tidy(raw, [("slot", start, end) for start, end in spans])
    assert (text, [text[start:end] for _, start, end in moved]) == tidied


@pytest.mark.parametrize(
    ("templates_by_intent", "sizes"),
    [
        ([1], (1, 0, 0)),
        ([1, 1, 1], (3, 0, 0)),
        ([2], (1, 0, 1)),
        ([3, 2], (3, 1, 1)),
        ([10], (7, 1, 2)),
        ([50, 30, 10, 5, 3, 1, 1], (70, 10, 20)),
        ([1000, 600, 87], (1181, 169, 337)),
    ],
)
def test_templates_are_split_by_share_and_every_intent_is_trained(
    templates_by_intent: list[int], sizes: tuple[int, int, int]
) -> None:
    templates = [
        assistant.Template(f"{random.Random(f'{intent} {number}').getrandbits(64):016x}", str(intent), "")
        for intent, count in enumerate(templates_by_intent)
        for number in range(count)
    ]
    parts = assistant.divide(templates)
    assert tuple(len(parts[name]) for name in EVERY_SPLIT) == sizes
    assert sorted(parts["all"], key=templates.index) == templates
    assert Counter(template.id for name in EVERY_SPLIT for template in parts[name]) == Counter(
        template.id for template in templates
    )
    assert {template.intent for template in parts["train"]} == {template.intent for template in templates}
    assert assistant.divide(templates[::-1]) == parts


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """All languages, the default ones to train on."""
    others = [code for code in assistant.languages() if code not in assistant.DEFAULT_LANGUAGES]
    return assistant.generate(assistant.DEFAULT_LANGUAGES, others, **SIZES)


def test_every_language_of_the_package_has_a_test_split(corpus: Corpus) -> None:
    assert len(assistant.languages()) >= 60
    assert sorted(corpus.test) == list(assistant.languages())
    assert tuple(corpus.test)[:12] == tuple(corpus.train) == tuple(corpus.dev) == assistant.DEFAULT_LANGUAGES
    assert all(corpus.test.values())
    assert all(corpus.dev.values())


def test_training_is_as_uneven_as_the_templates_and_evaluation_is_capped(corpus: Corpus) -> None:
    templates = {code: len(assistant.Language(code).templates["train"]) for code in ("de", "hi")}
    for code, count in templates.items():
        assert len({record["template"] for record in corpus.train[code]}) > 0.95 * count
        assert len(corpus.train[code]) <= SIZES["per_template"] * count
    assert len(corpus.train["de"]) > 5 * len(corpus.train["hi"])
    assert max(map(len, corpus.dev.values())) == SIZES["dev_size"]
    assert max(map(len, corpus.test.values())) == SIZES["test_size"]


def test_no_template_and_no_sentence_is_in_two_splits(corpus: Corpus) -> None:
    for code in corpus.train:
        for key in ("template", "text"):
            values = [{record[key] for record in getattr(corpus, split)[code]} for split in EVERY_SPLIT]
            assert sum(map(len, values)) == len(set.union(*values)), (code, key)
    for records in (records for split in EVERY_SPLIT for records in getattr(corpus, split).values()):
        assert len({record["text"] for record in records}) == len(records)


def test_labels_are_those_of_training(corpus: Corpus) -> None:
    assert set(corpus.labels) == {record["label"] for records in corpus.train.values() for record in records}
    assert list(corpus.labels) == sorted(corpus.labels)
    assert len(corpus.labels) >= 40
    for split in (corpus.dev, corpus.test):
        assert {record["label"] for records in split.values() for record in records} <= set(corpus.labels)


def test_every_sentence_of_every_language_reads_cleanly(corpus: Corpus) -> None:
    spaceless = r"[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff]"  # Thai, kana, Han
    stray = re.compile(rf"[\[\](){{}}<>|;\\]|\s\s|^\s|\s$|[^\S ]|{spaceless} {spaceless}")
    records = [record for split in EVERY_SPLIT for records in getattr(corpus, split).values() for record in records]
    assert [record["text"] for record in records if stray.search(record["text"])] == []
    assert all(2 <= len(record["text"]) <= MAX_CHARACTERS for record in records)
    for record in records:
        for slot in record["slots"]:
            words = record["text"][slot["start"] : slot["end"]]
            assert words
            assert words == words.strip()
        starts = [slot["start"] for slot in record["slots"]]
        ends = [slot["end"] for slot in record["slots"]]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


def test_labels_that_training_lacks_stay_in_the_test() -> None:
    small = assistant.generate(["te"], ["de"], **SIZES)
    assert len(small.labels) < 5
    assert len(small.test["de"]) == SIZES["test_size"]
    assert not {record["label"] for record in small.test["de"]} <= set(small.labels)


def test_test_sentences_alone_are_those_of_the_run() -> None:
    """A language that was trained on is tested on its test templates, although its training is not asked for."""
    whole = assistant.load(["te", "kn"], ["ta", "pa"])
    for languages, unseen in ((["te", "kn"], ["ta", "pa"]), ([], ["kn", "te", "ta"]), (["kn"], ["pa"])):
        alone = assistant.load_test(languages, unseen, trained={"te", "kn"})
        assert (alone.train, alone.dev) == ({}, {})
        assert alone.test == {language: whole.test[language] for language in (*languages, *unseen)}


def test_what_is_named_unseen_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistant, "DEFAULT_LANGUAGES", ("te", "kn"))
    corpus = sets.load("assistant", BadRecords(), TASKS, unseen=["kn", "ta"])
    assert (list(corpus.train), list(corpus.test)) == (["te"], ["te", "kn", "ta"])


def test_the_same_in_another_process_with_another_hash_seed_and_order() -> None:
    training, unseen = ["hi", "ko"], ["cy", "he", "kw", "mn", "sw", "te", "th", "vi", "zh-HK"]
    here = assistant.generate(training, unseen, **SIZES)
    script = (
        "import json; from multitune.data.sets import assistant\n"
        f"corpus = assistant.generate({training[::-1]}, {unseen[::-1]}, **{SIZES})\n"
        "print(json.dumps([corpus.train, corpus.dev, corpus.test]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(there.stdout) == [here.train, here.dev, here.test]


def test_more_sentences_a_template_keep_the_first_ones() -> None:
    source = assistant.Language("ja")
    few = [list(records) for records in source.sentences("train", 2)]
    many = [list(records) for records in source.sentences("train", 5)]
    assert few == [records[:2] for records in many]


def test_the_second_load_reads_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = assistant.load(["te"], ["sw"], per_template=2)
    (entry,) = (cache.root() / "assistant").iterdir()
    made = (entry / assistant.FILE).stat()
    assert assistant.load(["te"], ["sw"], per_template=2) == first
    assert assistant.load(["te"], ["sw"], per_template=3) != first
    assert (entry / assistant.FILE).stat().st_ino == made.st_ino


def test_damaged_sentences_are_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = assistant.load(["te"], ["sw"])
    (entry,) = (cache.root() / "assistant").iterdir()
    os.truncate(entry / assistant.FILE, 1000)
    assert assistant.load(["te"], ["sw"]) == first
    assert len(caplog.messages) == 1


def test_a_cache_that_cannot_be_written_is_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "multitune").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assistant.load(["te"], []).train["te"]
    (warning,) = caplog.messages
    assert "XDG_CACHE_HOME" in warning


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"languages": ["en", "xx"]}, "languages: data: assistant has no 'xx'; it has af, ar, "),
        ({"languages": ["en"], "unseen": ["zh"]}, "has no 'zh'; it has .*zh-CN"),
        ({"languages": ["en"], "unseen": ["de", "en"]}, "'en' is named 2 times"),
        ({"languages": []}, "names no language"),
        ({"languages": ["en"], "unseen": [], "per_template": 0}, "per_template: is 0; it must be at least 1"),
        ({"languages": ["en"], "unseen": [], "test_size": -1}, "test_size: is -1"),
    ],
)
def test_mistakes_are_named_in_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        assistant.load(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistant, "PACKAGES", ("babel", "no_such_package"))
    with pytest.raises(UserError, match=r"needs no-such-package; pip install 'multitune\[offline\]'"):
        assistant.load(["en"])


def test_words_are_of_the_language_and_complete() -> None:
    assert "Allemagne" in cldr.words("fr")["territory"]
    assert "Париж" in cldr.words("ru")["city"]
    assert "Paris" in cldr.words("de")["city"]
    assert "lunedì" in cldr.words("it")["day"]
    assert "sueco" in cldr.words("pt-BR")["language"]
    assert "5 liters" in cldr.words("en")["quantity"]
    for code in assistant.languages():
        for kind, words in cldr.words(code).items():
            assert len(words) >= 5, (code, kind)
            assert not [word for word in words if "_" in word or "/" in word or word != word.strip()], (code, kind)


def test_a_language_that_cldr_does_not_know_gets_english_words(caplog: pytest.LogCaptureFixture) -> None:
    assert cldr.words("xx-YY") == cldr.words("en")
    assert "'xx-YY'" in caplog.text

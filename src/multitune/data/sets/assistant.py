"""The offline data set: what people say to voice assistants, and what they want, in the languages of Home Assistant.

The package home-assistant-intents (Apache-2.0) holds templates written by speakers, from 1,685 for German down to 12
for Telugu, each with its intent, which is the label. Sentences are drawn by a seeded random walk over the template.
Where a template leaves a name to the household (a room, a device, a list), a word of the language from CLDR stands in:
rooms are called after countries, devices after cities, floors after regions of the world.

Templates, never sentences, are split into train, dev and test, by a hash of language, intent and template: no training
seed and no other language changes the split.
"""

import hashlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitune.data.corpus import Corpus, Record
from multitune.errors import UserError
from multitune.storage import cache

if TYPE_CHECKING:
    from multitune.data.sets.templates import Grammar

CODE = ("data/sets/assistant.py", "data/sets/cldr.py", "data/sets/templates.py", "data/corpus.py")
PACKAGES = ("babel", "hassil", "home_assistant_intents")
FILE = "assistant-sentences.json"
DEFAULT_LANGUAGES = ("de", "nl", "en", "fr", "ru", "zh-CN", "es", "fi", "ar", "ko", "hi", "vi")

SIZES = {"per_template": 4, "dev_size": 100, "test_size": 200}
"""The most sentences of a template, and of a language for dev and test."""
DEV_SHARE, TEST_SHARE = 0.1, 0.2
PATIENCE = 10  # draws in a row without a new sentence before a template counts as exhausted

# The kind of word for a name that the templates leave open, by the list's name; "city" for every other.
KIND_OF_WORD = {
    "area": "territory",
    "zone": "territory",
    "floor": "region",
    "timer_name": "day",
    "message": "day",
    "todo_list_item": "language",
    "search_query": "language",
    "shopping_list_item": "quantity",
    "timer_command": "command",
}
COMMAND_INTENTS = ("HassTurnOff", "HassTurnOn")  # what a delayed command ("... in five minutes") does
MOST_COMMANDS = 20  # of a language, since parsing templates takes most of the time


@dataclass(frozen=True)
class Template:
    """One template, its text in hassil's notation; the id is a hash of language, intent and text."""

    id: str
    intent: str
    text: str


def languages() -> tuple[str, ...]:
    """The codes of all languages in the installed package, sorted.

    Raises:
        UserError: a package of the extra ``offline`` is missing.
    """
    _require_packages()
    files = importlib.resources.files("home_assistant_intents").joinpath("data").iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


def load(
    languages: Sequence[str] | None = None,
    unseen: Sequence[str] | None = None,
    *,
    per_template: int = SIZES["per_template"],
    dev_size: int = SIZES["dev_size"],
    test_size: int = SIZES["test_size"],
) -> Corpus:
    """Sentences of ``languages`` to train on, and test sentences of these and of ``unseen``.

    A record is ``{"text", "label", "slots": [{"name", "start", "end"}, ...], "template"}``: ``text[start:end]`` are
    the slot's words, "template" is the template's id. The same arguments and package versions give the same records;
    they are kept in the user's cache folder, since drawing them takes seconds.

    Args:
        languages: training languages; ``DEFAULT_LANGUAGES`` if None.
        unseen: languages with a test split only, drawn from all their templates; None for all the others.
        per_template: the most sentences from a template, all different.
        dev_size: the most dev sentences a language; every template gives one before any gives a second.
        test_size: the most test sentences a language, likewise.

    Raises:
        UserError: an unknown language, one named twice, no training language, a size below one, a missing package.
    """
    languages = DEFAULT_LANGUAGES if languages is None else tuple(languages)
    unseen = _others(languages) if unseen is None else tuple(unseen)
    if not languages:
        raise UserError("languages: names no language to train on")
    sizes = {"per_template": per_template, "dev_size": dev_size, "test_size": test_size}
    _check_sizes(sizes)
    return _kept(languages, unseen, sizes)


def load_test(languages: Sequence[str] | None, unseen: Sequence[str] | None, trained: Collection[str]) -> Corpus:
    """The test sentences that ``load`` gives, without those for training, for a model that has been trained.

    Args:
        languages, unseen: as in ``load``, but ``languages`` may be empty.
        trained: languages that the model was trained on, so that in them no training template is for the test.

    Raises:
        UserError: as ``load`` does.
    """
    languages = DEFAULT_LANGUAGES if languages is None else tuple(languages)
    unseen = _others(languages) if unseen is None else tuple(unseen)
    seen = (*languages, *(code for code in unseen if code in trained))
    corpus = _kept(seen, tuple(code for code in unseen if code not in trained), SIZES)
    return replace(corpus, train={}, dev={}, test={code: corpus.test[code] for code in (*languages, *unseen)})


def _kept(languages: tuple[str, ...], unseen: tuple[str, ...], sizes: Mapping[str, int]) -> Corpus:
    """What ``generate`` gives, from the cache where it is there."""
    _check_languages(languages, unseen)
    versions = [importlib.metadata.version(name) for name in PACKAGES]
    return cache.kept(
        "assistant",
        cache.key(languages, unseen, sizes, versions, sys.version_info[:2], cache.code(*CODE)),
        make=lambda: generate(languages, unseen, **sizes),
        write=_write,
        read=_read,
    )


def generate(
    languages: Sequence[str], unseen: Sequence[str], *, per_template: int, dev_size: int, test_size: int
) -> Corpus:
    """What ``load`` keeps in its cache, drawn anew; languages and sizes must be valid."""
    train: dict[str, list[Record]] = {}
    dev: dict[str, list[Record]] = {}
    test: dict[str, list[Record]] = {}
    for code in languages:
        source = Language(code)
        train[code] = _distinct(chain.from_iterable(source.sentences("train", per_template)))
        dev[code] = _distinct(_in_turns(source.sentences("dev", per_template)), dev_size, train[code])
        test[code] = _distinct(_in_turns(source.sentences("test", per_template)), test_size, train[code] + dev[code])
    for code in unseen:
        test[code] = _distinct(_in_turns(Language(code).sentences("all", per_template)), test_size)

    labels = tuple(sorted({record["label"] for records in train.values() for record in records}))
    return Corpus("classification", labels, train, dev, test)


class Language:
    """The templates of one language by split ("train", "dev", "test", "all"), and the sentences they give.

    ``templates[split]`` is ordered by id, which is as good as shuffled. A template that the package gives for two
    intents counts for the first by name.
    """

    def __init__(self, code: str) -> None:
        file = importlib.resources.files("home_assistant_intents").joinpath("data", f"{code}.json")
        self.code = code
        self._content = json.loads(file.read_text(encoding="utf-8"))
        self.templates = divide(_templates(code, self._content["intents"]))
        self._grammar = self._build_grammar()

    def sentences(self, split: str, per_template: int) -> list[Iterator[Record]]:
        """For each template of the split, an iterator of up to ``per_template`` different sentences."""
        return [islice(draws(self._grammar, template), per_template) for template in self.templates[split]]

    def _build_grammar(self) -> "Grammar":
        from multitune.data.sets import cldr
        from multitune.data.sets.templates import Grammar

        words: dict[str, list[str]] = cldr.words(self.code)
        lists: dict[str, Any] = self._content["lists"]
        grammar = Grammar(self._content["expansion_rules"], lists, lambda name: words[KIND_OF_WORD.get(name, "city")])
        words["command"] = words["city"]  # in case that the only commands are delayed ones themselves
        if "timer_command" in lists:
            words["command"] = list(self._commands(grammar)) or words["city"]
        return grammar

    def _commands(self, grammar: "Grammar") -> Iterator[str]:
        """Sentences of training templates: no test template reaches training inside another sentence."""
        commands = [template for template in self.templates["train"] if template.intent in COMMAND_INTENTS]
        for template in commands[:MOST_COMMANDS]:
            yield from (record["text"] for record in islice(draws(grammar, template), 1))


def divide(templates: Sequence[Template]) -> dict[str, list[Template]]:
    """One language's templates ordered by id: "all" of them, and "train" (about 70 %), "dev" (10 %) and "test" (20 %).

    The first template of every intent is for training; of the others, laid out by
    intent, every n-th is held out, so that every intent is held out in proportion, as far as it has templates.
    """
    ordered = sorted(templates, key=lambda template: template.id)
    by_intent: dict[str, list[Template]] = defaultdict(list)
    for template in ordered:
        by_intent[template.intent].append(template)
    free = [template for intent in sorted(by_intent) for template in by_intent[intent][1:]]
    wanted = round((DEV_SHARE + TEST_SHARE) * len(ordered))
    held_out = _evenly(free, min(wanted, round(2 / 3 * len(free))))
    dev = set(_evenly(held_out, round(DEV_SHARE / (DEV_SHARE + TEST_SHARE) * len(held_out))))
    test = set(held_out) - dev
    train = set(ordered) - dev - test
    members = {"train": train, "dev": dev, "test": test, "all": set(ordered)}
    return {name: [template for template in ordered if template in chosen] for name, chosen in members.items()}


def draws(grammar: "Grammar", template: Template) -> Iterator[Record]:
    """Different sentences of a template, in an order that its id alone decides, until it seems exhausted."""
    from multitune.data.sets.templates import parse

    tree = parse(template.text)
    rng = random.Random(int(template.id, 16))
    seen: set[str] = set()
    misses = 0
    while misses < PATIENCE:
        drawn = grammar.draw(tree, rng)
        if drawn is None or drawn[0] in seen:
            misses += 1
            continue
        misses = 0
        text, spans = drawn
        seen.add(text)
        slots = [{"name": name, "start": start, "end": end} for name, start, end in spans]
        yield {"text": text, "label": template.intent, "slots": slots, "template": template.id}


def _templates(code: str, intents: Mapping[str, Any]) -> list[Template]:
    first: dict[str, Template] = {}
    for intent in sorted(intents):
        for text in chain.from_iterable(block["sentences"] for block in intents[intent]["data"]):
            if text not in first:
                digest = hashlib.sha256(f"{code}\n{intent}\n{text}".encode()).hexdigest()
                first[text] = Template(digest[:16], intent, text)
    return list(first.values())


def _evenly(items: Sequence[Template], count: int) -> list[Template]:
    """``count`` of the items, spread evenly over them."""
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]


def _in_turns(sources: Sequence[Iterator[Record]]) -> Iterator[Record]:
    """One record of each source, then a second of each, until all are exhausted."""
    while sources:
        alive = []
        for source in sources:
            if (record := next(source, None)) is not None:
                alive.append(source)
                yield record
        sources = alive


def _distinct(records: Iterable[Record], size: int | None = None, others: Sequence[Record] = ()) -> list[Record]:
    """The first ``size`` records whose text is neither met before nor in ``others``."""
    taken = {record["text"] for record in others}
    kept: list[Record] = []
    for record in records:
        if len(kept) == size:
            break
        if record["text"] not in taken:
            taken.add(record["text"])
            kept.append(record)
    return kept


def _write(corpus: Corpus, folder: Path) -> None:
    (folder / FILE).write_text(json.dumps(asdict(corpus), ensure_ascii=False), encoding="utf-8")


def _read(folder: Path) -> Corpus:
    stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Corpus(**{**stored, "labels": tuple(stored["labels"])})


def _require_packages() -> None:
    missing = [name.replace("_", "-") for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"data: assistant needs {', '.join(missing)}; pip install 'multitune[offline]'")


def _others(chosen: Sequence[str]) -> tuple[str, ...]:
    return tuple(code for code in languages() if code not in chosen)


def _check_languages(training: Sequence[str], unseen: Sequence[str]) -> None:
    known = languages()
    for code, times in Counter((*training, *unseen)).items():
        if code not in known:
            raise UserError(f"languages: data: assistant has no {code!r}; it has {', '.join(known)}")
        if times > 1:
            raise UserError(f"languages: {code!r} is named {times} times; name it once, in languages or in unseen")


def _check_sizes(sizes: Mapping[str, int]) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name}: is {size}; it must be at least 1")

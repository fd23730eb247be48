"""The data sets of the Hugging Face Hub in one table: repository, files, columns, languages.

Splits are used, and labels spelt, as in the folders of the same sets (sources.py).
"""

from operator import itemgetter
from typing import Any

from multitune.data.corpus import Place, Record
from multitune.data.fields import LABELLED_TEXT, PARTS_OF_SPEECH, SCORED_TEXT
from multitune.data.sets import hub_readers as read
from multitune.data.sets.folders import DEV, Layout, Part, Reader, divided, tenth
from multitune.data.sets.hub import HubSet, is_name, parsed_name
from multitune.data.sets.sources import MLQA_PAIRS, TYDIQA_LANGUAGES, UDPOS

XTREME = "google/xtreme"
TRAIN_DEV = ("train", "validation", None)
ALL = ("train", "validation", "test")

PANX = "de en es hi jv kk mr my sw te tl yo"
"""Table 2 of the Sequential Reptile paper."""
PANX_ALL = (
    "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl tr "
    "ur vi yo zh"
)
UDPOS_ALL = (
    "af:Afrikaans ar:Arabic bg:Bulgarian de:German el:Greek en:English es:Spanish et:Estonian eu:Basque "
    "fa:Persian fi:Finnish fr:French he:Hebrew hi:Hindi hu:Hungarian id:Indonesian it:Italian ja:Japanese "
    "kk:Kazakh ko:Korean mr:Marathi nl:Dutch pt:Portuguese ru:Russian ta:Tamil te:Telugu th:Thai tl:Tagalog "
    "tr:Turkish ur:Urdu vi:Vietnamese yo:Yoruba zh:Chinese"
)
MLQA = "ar de en es hi vi zh"
PAWSX = "de en es fr ja ko zh"
XNLI = "ar bg de el en es fr hi ru sw th tr ur vi zh"
XQUAD = "ar de el en es hi ru th tr vi zh"
OPUS = (
    "af am an ar as az be bg bn br bs ca cs cy da de dz el eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy "
    "id ig is it ja ka kk km kn ko ku ky li lt lv mg mk ml mn mr ms mt my nb ne nl nn no oc or pa pl ps pt ro ru "
    "rw se sh si sk sl sq sr sv ta te tg th tk tr tt ug uk ur uz vi wa xh yi yo zh zu"
)


def _codes(languages: str) -> dict[str, str]:
    """How file names spell a language -> the language; ``de:German`` where they differ."""
    spelt = (language.partition(":") for language in languages.split())
    return {name or code: code for code, _, name in spelt}


def _set(
    name: str,
    task: str,
    reader: Reader,
    repository: str,
    folder: str,
    splits: tuple[str | None, ...],
    languages: str,
    **options: Any,
) -> HubSet:
    """A set of texts, with ``folder/split-*.parquet`` for train, dev and test; ``options`` are its layout's."""
    train, dev, test = (None if split is None else Part((f"{folder}/{split}-*.parquet",)) for split in splits)
    return HubSet(repository, Layout(name, task, reader, train, dev, test, **options), tuple(languages.split()))


def _entities(name: str, repository: str, folder: str, **options: Any) -> HubSet:
    options |= {"read_unseen": read.entities_unseen, "read_any_tags": read.any_tags}
    return _set(name, "tagging", read.entities, repository, folder, TRAIN_DEV, PANX, **options)


def _questions(name: str, reader: Reader, repository: str, folder: str, *rest: Any, **options: Any) -> HubSet:
    return _set(name, "question_answering", reader, repository, folder, *rest, **options)


INFERENCE = read.table(LABELLED_TEXT, {"text": "premise", "text_pair": "hypothesis", "label": "label"})
PAIRS = read.table(LABELLED_TEXT, {"text": "sentence1", "text_pair": "sentence2", "label": "label"})
POS = read.table(PARTS_OF_SPEECH, {"tokens": "tokens", "pos": "pos_tags"})

TEXTS = (
    _entities("panx", XTREME, "PAN-X.{}", codes=_codes(PANX_ALL)),
    _entities("wikiann", "unimelb-nlp/wikiann", "{}"),
    _set(
        "udpos",
        "pos_tagging",
        POS,
        XTREME,
        "udpos.{}",
        ALL,
        "ar en eu fi id ja mr ta te tr vi zh",
        codes=_codes(UDPOS_ALL),
        labels=UDPOS[0].labels,
    ),
    _questions(
        "tydiqa",
        read.tydiqa,
        "google-research-datasets/tydiqa",
        "secondary_task",
        TRAIN_DEV,
        " ".join(TYDIQA_LANGUAGES.values()),
        codes=TYDIQA_LANGUAGES,
    ),
    _questions("squad", read.questions, "rajpurkar/squad", "plain_text", TRAIN_DEV, "en", codes={"": "en"}),
    _questions("squad_v2", read.questions, "rajpurkar/squad_v2", "squad_v2", TRAIN_DEV, "en", codes={"": "en"}),
    _questions("xquad", read.questions, XTREME, "XQuAD.{}", (None, None, "validation"), XQUAD, codes=_codes(XQUAD)),
    _questions(
        "mlqa",
        read.mlqa,
        XTREME,
        "MLQA.{}",
        (None, "validation", None),
        MLQA,
        codes={pair.replace("-question-", "."): language for pair, language in MLQA_PAIRS.items()},
        by_name=[language for language in MLQA_PAIRS.values() if "-" in language],
    ),
    _set(
        "mnli",
        "classification",
        INFERENCE,
        "nyu-mll/glue",
        "mnli",
        ("train", "validation_matched", None),
        "en",
        codes={"": "en"},
    ),
    _set("xnli", "classification", INFERENCE, "facebook/xnli", "{}", ALL, XNLI, codes=_codes(XNLI), trained=("en",)),
    _set("pawsx", "classification", PAIRS, XTREME, "PAWS-X.{}", ALL, PAWSX, codes=_codes(PAWSX)),
    _set(
        "opus100",
        "translation",
        read.from_english,
        "Helsinki-NLP/opus-100",
        "{}",
        ALL,
        "",
        codes={"-".join(sorted((code, "en"))): code for code in OPUS.split()},
    ),
    HubSet(
        "xu-song/cc100-samples",
        Layout("cc100", "masked_language_modelling", read.lines, *divided("{}/train/*.parquet", itemgetter("text"))),
        (),
        revision="refs/convert/parquet",
    ),
)


def _glue(name: str, folder: str, reader: Reader, *, task: str = "classification", dev: str = "validation") -> HubSet:
    return _set("glue", task, reader, "nyu-mll/glue", folder, ("train", dev, None), name, codes={"": name})


def _numbered(**columns: str) -> Reader:
    """Classes are numbers in the original files of the task."""
    return read.table(LABELLED_TEXT, columns | {"label": "label"}, numbered=True)


def _named(text: str, text_pair: str) -> Reader:
    return read.table(LABELLED_TEXT, {"text": text, "text_pair": text_pair, "label": "label"})


GLUE = {
    "CoLA": _glue("CoLA", "cola", _numbered(text="sentence")),
    "MNLI": _glue("MNLI", "mnli", INFERENCE, dev="validation_matched"),
    "MRPC": _glue("MRPC", "mrpc", _numbered(text="sentence1", text_pair="sentence2")),
    "QNLI": _glue("QNLI", "qnli", _named("question", "sentence")),
    "QQP": _glue("QQP", "qqp", _numbered(text="question1", text_pair="question2")),
    "RTE": _glue("RTE", "rte", PAIRS),
    "SST-2": _glue("SST-2", "sst2", _numbered(text="sentence")),
    "STS-B": _glue(
        "STS-B",
        "stsb",
        read.table(SCORED_TEXT, {"text": "sentence1", "text_pair": "sentence2", "score": "label"}),
        task="regression",
    ),
}
"""Task -> where it is; Table 9 of the Sequential Reptile paper."""


def _validates(place: Place, record: Record) -> bool:
    """A tenth of the training images, where the set has none for validation."""
    return tenth(record["image"]) == DEV


def _images(
    name: str, repository: str, folder: str, reader: Reader, *, test: str = "test", dev: str | None = None
) -> HubSet:
    names = (f"{folder}/train-*.parquet",)
    train, validation = Part(names, lambda place, record: not _validates(place, record)), Part(names, _validates)
    if dev is not None:
        train, validation = Part(names), Part((f"{folder}/{dev}-*.parquet",))
    reported = Part((f"{folder}/{test}-*.parquet",))
    layout = Layout(name, "image_classification", reader, train, validation, reported, codes={"": name})
    return HubSet(repository, layout, (name,))


IMAGES = {
    image_set.layout.name: image_set
    for image_set in (
        _images("tiny-imagenet-1", "zh-plus/tiny-imagenet", "data", read.pictures(half=0), test="valid"),
        _images("tiny-imagenet-2", "zh-plus/tiny-imagenet", "data", read.pictures(half=1), test="valid"),
        _images("cifar100", "uoft-cs/cifar100", "cifar100", read.pictures("img", "fine_label")),
        _images("stanford-dogs", "Donghyun99/Stanford-Dogs", "data", read.pictures()),
        _images("fgvc-aircraft", "Donghyun99/FGVC-Aircraft", "data", read.pictures(), dev="val"),
        _images("cub-200", "Donghyun99/CUB-200-2011", "data", read.pictures()),
        _images("fashion-mnist", "zalando-datasets/fashion_mnist", "fashion_mnist", read.pictures()),
        _images("svhn", "ufldl-stanford/svhn", "cropped_digits", read.pictures()),
    )
}
"""Task -> where it is; Table 10 of the Sequential Reptile paper."""

MORE_IMAGES = (
    _images("tiny-imagenet", "zh-plus/tiny-imagenet", "data", read.pictures(), test="valid"),
    _images("stanford-cars", "Donghyun99/Stanford-Cars", "data", read.pictures()),
)

SETS = {hub_set.layout.name: hub_set for hub_set in (*TEXTS, *IMAGES.values(), *MORE_IMAGES)}
"""Name -> where the Hub has it."""

_TASKS = {"glue": GLUE, "images": IMAGES}


def repositories(name: str) -> list[str]:
    """The Hub's names of what a data set consists of; empty where it does not come from there."""
    if is_name(name):
        return [parsed_name(name)[0]]
    parts = _TASKS[name].values() if name in _TASKS else [SETS[name]] if name in SETS else []
    return list(dict.fromkeys(part.repository for part in parts))

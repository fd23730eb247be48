"""Write commands.csv, the data of the tutorials: sentences for voice assistants, from `data: assistant`.

python docs/tutorials/commands.py; the sentences are made of the templates of home-assistant-intents (Apache-2.0).
"""

import csv
import random
from pathlib import Path

import multitune as mt
from multitune.training.loading import load_corpus

TRAINED = {"de": 220, "en": 180, "nl": 140, "fr": 140, "es": 90, "ru": 90, "zh-CN": 90, "fi": 60}
TRAINED |= {"ar": 50, "ko": 40, "hi": 40, "vi": 40}
UNSEEN = dict.fromkeys(("it", "sv", "tr", "ja"), 50)
INTENTS = {
    "HassTurnOn": "turn on",
    "HassTurnOff": "turn off",
    "HassGetState": "ask state",
    "HassStartTimer": "start timer",
    "HassClimateSetTemperature": "set temperature",
    "HassSetVolume": "set volume",
}


def rows() -> list[tuple[str, str, str]]:
    """(language, text, intent): so many of each language, drawn with a fixed seed."""
    corpus = load_corpus(mt.Recipe(data="assistant"))
    made = []
    for language, count in (TRAINED | UNSEEN).items():
        records = list(corpus.train[language] if language in TRAINED else corpus.test[language])
        known = {(language, r["text"], INTENTS[r["label"]]) for r in records if r["label"] in INTENTS}
        made += random.Random(0).sample(sorted(known), min(count, len(known)))
    return made


if __name__ == "__main__":
    with (Path(__file__).parent / "commands.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("lang", "text", "intent"))
        writer.writerows(rows())

"""From a CSV to a model that predicts: seconds of each command, with nothing in any cache.

The table has 1,800 rows in six languages: what people say to a voice assistant, made of the templates of
home-assistant-intents. Each command gets an empty cache and no settings of the user's (``XDG_CACHE_HOME``,
``XDG_CONFIG_HOME``), so that the encoder is made, too. Installing is not timed.

    python bench/stranger.py                # the environment that runs this script
    python bench/stranger.py --from wheel   # a wheel, built and installed into an empty environment first
    python bench/stranger.py --from clone   # a fresh clone, set up as the README says
    python bench/stranger.py --write FOLDER # the table, and texts to predict, alone
"""

import argparse
import csv
import os
import random
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGUAGES = ("de", "en", "es", "fr", "nl", "ru")
ROWS = 300
"""Of each language."""
UNSEEN_ROWS = 5
"""Further texts of each language, which are predicted."""
TABLE, NEW, RUN = "commands.csv", "new.txt", "runs/commands-sequential_reptile-seed0"
ALLOWED = 90
"""Seconds for all commands together, on two idle cores."""
EXTRAS = "offline"


def write(folder: Path) -> None:
    """Write the table and the texts to predict."""
    import multitune as mt
    from multitune.training.loading import load_corpus

    intents = runpy.run_path(str(ROOT / "docs" / "tutorials" / "commands.py"))["INTENTS"]
    corpus = load_corpus(mt.Recipe(data="assistant"))
    folder.mkdir(parents=True, exist_ok=True)
    new: list[str] = []
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("lang", "text", "intent"))
        for language in LANGUAGES:
            known = {(r["text"], intents[r["label"]]) for r in corpus.train[language] if r["label"] in intents}
            drawn = random.Random(0).sample(sorted(known), ROWS + UNSEEN_ROWS)
            table.writerows((language, *row) for row in drawn[:ROWS])
            new += [text for text, _ in drawn[ROWS:]]
    (folder / NEW).write_text("".join(f"{text}\n" for text in new), encoding="utf-8")


def installed(source: str, folder: Path) -> Path:
    """The command ``multitune`` of an environment made from ``source``."""
    if source == "here":
        return Path(sys.executable).parent / "multitune"
    if source == "clone":
        _run("git", "clone", "--quiet", str(ROOT), str(folder / "clone"))
        wanted = ["--editable", f"{folder / 'clone'}[{EXTRAS}]"]
    else:
        _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
        (wheel,) = folder.glob("*.whl")
        wanted = [f"{wheel}[{EXTRAS}]"]
    _run(sys.executable, "-m", "venv", str(folder / "venv"))
    pip = (str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"))
    _run(*pip, "torch==2.13.0")
    _run(*pip, *wanted)
    return folder / "venv/bin/multitune"


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def timed(words: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processor() -> str:
    """The processor's name, as the kernel has it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--from", dest="source", choices=("here", "wheel", "clone"), default="here")
    arguments.add_argument("--write", type=Path, metavar="FOLDER")
    given = arguments.parse_args()
    if given.write is not None:
        write(given.write)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder)
        command = str(installed(given.source, folder))
        homes = {f"XDG_{home}_HOME": str(folder / home.lower()) for home in ("CACHE", "CONFIG")}
        ours = () if given.source == "here" else ("PYTHONPATH",)
        environment = {key: value for key, value in os.environ.items() if key not in ours} | homes
        print(f"{processor()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; from: {given.source}")
        print("| Command | s | CPU, s |\n|---|---|---|")
        total = 0.0
        for words in (("train", TABLE), ("predict", RUN, NEW)):
            wall, cpu = timed((command, *words), folder, environment)
            total += wall
            print(f"| `multitune {' '.join(words)}` | {wall:.1f} | {cpu:.1f} |", flush=True)
        print(f"| both; {ALLOWED} are allowed on two idle cores | {total:.1f} | |")


if __name__ == "__main__":
    main()

"""Draw what a terminal of 80 columns shows: commands on a table of one's own, as SVG, in docs/figures.

python docs/terminal_pictures.py [key=value ...]; make example does it. Every command is run, in a temporary folder, in
a pseudo-terminal, and what it prints is drawn as the terminal would show it. Training is drawn when half of it is done,
and at its end.
"""

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import sys
import tempfile
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
COLUMNS, ROWS = 80, 60
RUN = "runs/commands-sequential_reptile-seed0"
TEXTS = ("mach das Licht in der Küche an", "quelle est la température du salon", "20 derece yap")
HALF = re.compile(r" 1[0-9]{2}/200 .*[0-9]:[0-9]{2}")
"""A bar when half of the gradients are computed, with the time left."""
ESCAPES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def shown(stream: str) -> list[str]:
    """The lines of a terminal after a stream of characters, with their colours; rows never move but by lines."""
    lines, row = [""], 0
    for part in re.split(r"(\n|\r|\x1b\[[0-9;?]*[A-LN-Za-ln-z])", stream):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            pass  # what follows clears the line, or is the line's end
        elif (escape := ESCAPES.fullmatch(part)) is None:
            lines[row] += part
        elif escape[2] == "A":
            row = max(0, row - int(escape[1] or 1))
        elif escape[2] == "K":
            lines[row] = ""
    return lines


def run(words: Sequence[str], folder: Path, until: Callable[[str], object] = lambda stream: False) -> tuple[str, str]:
    """What a command writes to a terminal until something is written, and in all."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "XDG_CONFIG_HOME": str(folder)}
        os.execv(Path(sys.executable).parent / words[0], words)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    stream, early, content = "", "", b""
    while content := _read(terminal):
        stream += content.decode(errors="replace")
        if not early and until(stream):
            early = stream
    if os.waitpid(child, 0)[1]:
        sys.exit("\n".join([f"{' '.join(words)} failed:", *shown(stream)]))
    return early, stream


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 2**16)
    except OSError:  # how Linux tells that the other side is closed
        return b""


def wrap(line: Text) -> Sequence[Text]:
    """A line as a terminal breaks it, which knows no words."""
    return line.divide(range(COLUMNS, len(line), COLUMNS))


def picture(name: str, words: Sequence[str], stream: str) -> None:
    """Draw a command and what it showed as SVG that asks the network for no font."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, markup=False)
    console.print(Text.assemble(("$ ", "bold green"), (" ".join(words), "bold")))
    for line in "\n".join(shown(stream)).rstrip().splitlines():
        for row in wrap(Text.from_ansi(line)):
            console.print(row)
    console.print()  # the lowest line is drawn without its descenders
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="multitune"), flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    (DOCS / "figures" / f"terminal-{name}.svg").write_text(re.sub(r"terminal-\d+", name, svg), encoding="utf-8")


def main() -> None:
    """Train, and draw; then ask the run."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shutil.copy(DOCS / "tutorials" / "commands.csv", folder)
        (folder / "new.txt").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
        train = ("multitune", "train", "commands.csv", *sys.argv[1:])
        early, whole = run(train, folder, HALF.search)
        picture("training", train, early)
        picture("trained", train, whole)
        for name, words in (
            ("predict", ("multitune", "predict", RUN, "new.txt")),
            ("runs", ("multitune", "runs")),
            ("probe", ("multitune", "probe", RUN)),
        ):
            picture(name, words, run(words, folder)[1])


if __name__ == "__main__":
    main()

"""``python -m multitune`` is the command line."""

from multitune.cli import main

main()

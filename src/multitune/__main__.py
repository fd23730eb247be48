"""``python -m multitune`` is the command line."""

from multitune.cli.app import main

main()

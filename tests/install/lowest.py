"""Constraints in which each dependency but torch stands at the lowest version that pyproject.toml allows.

Usage: python tests/install/lowest.py EXTRA,EXTRA
"""

import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def lowest(names: Iterable[str]) -> dict[str, str]:
    """Name -> version, of the core and these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    versions = {}
    for line in [*project["dependencies"], *(line for extra in names for line in extras[extra])]:
        requirement = Requirement(line)
        (bound,) = requirement.specifier
        versions[requirement.name] = bound.version
    return versions | {"torch": "2.13.0"}


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in sorted(lowest(sys.argv[1].split(",")).items())), sep="\n")

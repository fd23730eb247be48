"""Constraints in which each dependency but torch stands at the lowest version that pyproject.toml allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXTRAS = ("offline", "torchjd", "figures", "hf", "hub", "images", "tensorboard")


def lowest() -> dict[str, str]:
    """Name -> version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    versions = {}
    for line in [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]:
        requirement = Requirement(line)
        (bound,) = requirement.specifier
        versions[requirement.name] = bound.version
    return versions | {"torch": "2.13.0"}


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in sorted(lowest().items())), sep="\n")

"""The wheel in an environment of its own, without extras: what multitune's metadata name is enough for text."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders import comparison_file

pytestmark = pytest.mark.check
ROOT = Path(__file__).parents[2]


def run(*words: object, cwd: Path) -> str:
    """What a command prints; it must end well."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a fresh environment that has the wheel and what its metadata name, in the versions tested."""
    folder = tmp_path_factory.mktemp("core")
    source = folder / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", source / "recipes")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    (wheel,) = folder.glob("*.whl")
    pip = (folder / "venv/bin/python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    run(*pip, "torch==2.13.0", cwd=folder)
    run(*pip, wheel, cwd=folder)
    return folder / "venv/bin/multitune"


def test_a_core_install_does_all_but_images(command: Path, tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    file = comparison_file(tiny_model, tiny_panx)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(file.run | {"methods": file.methods}))
    assert "compare" in run(command, "--help", cwd=tmp_path)
    assert "sequential_reptile" in run(command, "methods", cwd=tmp_path)
    assert "small/table2" in run(command, "recipes", cwd=tmp_path)
    assert "data: assistant" in run(command, "recipes", "demo", cwd=tmp_path)
    assert "B-PER" in run(command, "data", recipe, cwd=tmp_path)
    assert "mtl" in run(command, "train", recipe, "method=mtl", "budget=8", "--out", "run", cwd=tmp_path)
    assert "aa" in run(command, "evaluate", "run", cwd=tmp_path)
    assert "sequential_reptile" in run(command, "compare", recipe, "budget=8", "--out", "both", cwd=tmp_path)
    assert "report.html" in run(command, "report", "both", cwd=tmp_path)
    assert "Sequential Reptile" in run(command, "synthetic", "--no-figures", cwd=tmp_path)


def test_what_needs_an_extra_says_which(command: Path, tmp_path: Path) -> None:
    for words, extra in (
        (("synthetic",), "figures"),
        (("data", "r.yaml", "data=assistant"), "offline"),
    ):
        (tmp_path / "r.yaml").write_text("data: panx\n")
        done = subprocess.run([command, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr[-2000:]
        assert f"multitune[{extra}]" in done.stderr
        assert done.stderr.count("\n") == 1

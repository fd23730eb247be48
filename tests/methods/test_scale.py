"""docs/scale.md is what bench/scale.py computes, and its formulas are the bytes that two ranks send."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "scale.py"


def test_the_page_is_what_is_computed() -> None:
    pytest.importorskip("fcntl")
    computed = runpy.run_path(str(SCRIPT))["page"]()
    assert (ROOT / "docs" / "scale.md").read_text(encoding="utf-8") == computed, "python bench/scale.py > docs/scale.md"


@pytest.mark.check
def test_two_ranks_send_what_the_formulas_say() -> None:
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a network of its own")
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("by the formula") == 4

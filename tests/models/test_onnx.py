"""A shipped model computes the same in ONNX Runtime, by the script that the docs name."""

import runpy
from pathlib import Path

import pytest

from multitune.models import encoder as encoders
from multitune.tasks import Classification, HeadMap, Tagging, Task

pytestmark = pytest.mark.check
SCRIPT = Path(__file__).parents[2] / "docs" / "export_onnx.py"


@pytest.mark.parametrize(
    "task", [Classification(("no", "yes")), Tagging(("O", "B-PER", "I-PER"))], ids=["text", "tags"]
)
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_the_exported_model_has_the_same_logits(tmp_path: Path, tiny_model: Path, task: Task) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    encoder = encoders.load(str(tiny_model), HeadMap.of_all(task), layers=None, dropout=None, seed=0)
    encoder.save(tmp_path / "model")
    worst = runpy.run_path(str(SCRIPT))["exported"](tmp_path / "model", tmp_path / "model.onnx")
    assert worst < 1e-5
    assert (tmp_path / "model.onnx").stat().st_size > 1000

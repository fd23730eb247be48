"""Export a run's model to ONNX and compare it with PyTorch.

pip install onnx onnxruntime onnxscript, then: python docs/export_onnx.py runs/NAME/model model.onnx
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

INPUTS = ("input_ids", "attention_mask")
TEXTS = ["Licht an", "a text of another length", "ein dritter"]


class Logits(torch.nn.Module):
    """The model as a function of two tensors, [batch, tokens] each."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits, [batch, labels], or [batch, tokens, labels] where each token has one."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def exported(folder: Path, file: Path) -> float:
    """Write the model in ``folder`` to ``file``; the largest difference of its logits from PyTorch's is returned."""
    import onnxruntime

    (architecture,) = AutoConfig.from_pretrained(folder).architectures
    of_tokens = architecture.endswith("ForTokenClassification")
    auto = AutoModelForTokenClassification if of_tokens else AutoModelForSequenceClassification
    model = Logits(auto.from_pretrained(folder, attn_implementation="eager")).eval()
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    given = tuple(batch[name] for name in INPUTS)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        model,
        given,
        file,
        dynamo=True,
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(INPUTS, sizes),
    )
    session = onnxruntime.InferenceSession(file)
    worst = 0.0
    for rows in (1, len(TEXTS)):
        feeds = {name: batch[name][:rows].numpy() for name in INPUTS}
        with torch.inference_mode():
            expected = model(*(batch[name][:rows] for name in INPUTS)).numpy()
        worst = max(worst, float(np.abs(session.run(["logits"], feeds)[0] - expected).max()))
    return worst


if __name__ == "__main__":
    print(f"largest difference of a logit: {exported(Path(sys.argv[1]), Path(sys.argv[2])):.1e}")

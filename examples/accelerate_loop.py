"""Sequential Reptile in a loop of your own with accelerate: three regressions share a layer, one task a step."""

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader

import multitune as mt
from multitune.hf import OneTaskBatches

torch.manual_seed(0)
inputs, slopes = torch.randn(3, 64, 8), torch.randn(3, 8)
targets = torch.einsum("tnd,td->tn", inputs, slopes).tanh()
rows = [{"task": t, "x": inputs[t, n].tolist(), "y": float(targets[t, n])} for t in range(3) for n in range(64)]
data = Dataset.from_list(rows).with_format("torch")

accelerator = Accelerator(cpu=True)
batches = OneTaskBatches(data, "task", 16, batches_per_task=accelerator.num_processes)
shared, heads = nn.Linear(8, 16), nn.ModuleList(nn.Linear(16, 1) for _ in range(3))
model = nn.ModuleDict({"shared": shared, "heads": heads})
outer = mt.SequentialReptile(torch.optim.AdamW(model.parameters(), lr=0.01), inner_steps=25, outer_lr=0.5)
model, optimizer, loader = accelerator.prepare(model, outer, DataLoader(data, batch_sampler=batches))


def loss(task: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    predicted: torch.Tensor = heads[task](shared(x).tanh())
    return nn.functional.mse_loss(predicted.squeeze(1), y)


for _ in range(100):  # each time an epoch of its own
    for batch in loader:
        accelerator.backward(loss(int(batch["task"][0]), batch["x"], batch["y"]))
        optimizer.step()
        optimizer.zero_grad()
outer.finish()  # the model now has the slow weights
with torch.no_grad():
    print([round(float(loss(t, inputs[t], targets[t])), 4) for t in range(3)])

"""Sequential Reptile in an ordinary PyTorch loop: three regressions share a layer, one task a step."""

import torch
from torch import nn

import multitune as mt

torch.manual_seed(0)
inputs, slopes = torch.randn(3, 64, 8), torch.randn(3, 8, 1)
targets = (inputs @ slopes).tanh()

shared, heads = nn.Linear(8, 16), nn.ModuleList(nn.Linear(16, 1) for _ in range(3))
model = nn.ModuleDict({"shared": shared, "heads": heads})
outer = mt.SequentialReptile(torch.optim.AdamW(model.parameters(), lr=0.01), inner_steps=25, outer_lr=0.5)

for _ in range(600):
    t = int(torch.randint(3, ()))
    outer.zero_grad()
    nn.functional.mse_loss(heads[t](shared(inputs[t]).tanh()), targets[t]).backward()
    outer.step()
outer.finish()  # the model now has the slow weights
with torch.no_grad():
    for t in range(3):
        print(t, round(float(nn.functional.mse_loss(heads[t](shared(inputs[t]).tanh()), targets[t])), 3))

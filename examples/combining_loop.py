"""A combining method in an ordinary PyTorch loop: three regressions share a layer, PCGrad combines their gradients."""

import torch
from torch import nn

import multitune as mt

torch.manual_seed(0)
inputs, slopes = torch.randn(3, 64, 8), torch.randn(3, 8, 1)
targets = (inputs @ slopes).tanh()

shared, heads = nn.Linear(8, 16), nn.ModuleList(nn.Linear(16, 1) for _ in range(3))
model = nn.ModuleDict({"shared": shared, "heads": heads})
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
combiner = mt.Combiner(model.parameters(), mt.methods.PCGrad(seed=0), heads=heads.parameters())

for step in range(200):
    losses = (nn.functional.mse_loss(heads[t](shared(inputs[t]).tanh()), targets[t]) for t in range(3))
    optimizer.zero_grad()
    values = combiner.backward(losses, tasks=range(3))
    optimizer.step()
    if step % 50 == 49:
        print(step + 1, [round(value, 3) for value in values.tolist()])

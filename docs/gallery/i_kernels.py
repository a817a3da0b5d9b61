"""
The kernels alone, in your own network
======================================

The operations under both algorithms are plain functions on tensors, with gradients, that go into any network. Here:
mean shift inside a window, an edge-keeping smoothing of an embedding, as the last layer of a small network of ours.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import spectrafuse as sf


class Smoothed(nn.Module):
    """Two convolutions, then mean shift and a soft assignment to `clusters` centers."""

    def __init__(self, bands, clusters, width=16):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(bands, width, 1), nn.Tanh(), nn.Conv2d(width, width, 1))
        self.centers = nn.Parameter(torch.randn(clusters, width))
        self.bandwidth = nn.Parameter(torch.tensor(0.5))

    def forward(self, images):
        embeddings = nn.functional.normalize(self.encoder(images), dim=1)
        centers = nn.functional.normalize(self.centers, dim=1)
        return sf.ops.mean_shift_assign(embeddings, centers, self.bandwidth, window=5, num_iters=5).probs


torch.manual_seed(0)
truth = (torch.arange(48)[:, None] // 12 + torch.arange(48) // 16) % 3
images = torch.eye(3)[truth].permute(2, 0, 1)[None] @ torch.eye(48) + 0.6 * torch.randn(1, 3, 48, 48)
network = Smoothed(bands=3, clusters=3)
optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
for _ in range(60):
    probabilities = network(images)  # (1, rows, columns, clusters)
    loss = nn.functional.nll_loss(probabilities.clamp(min=1e-6).log().flatten(0, 2), truth.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.3f}, learned bandwidth {network.bandwidth.item():.2f}")

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
axes[0].imshow(images[0].permute(1, 2, 0).clip(0, 1))
axes[1].imshow(network(images).argmax(-1)[0], cmap="tab10", interpolation="nearest")
for axis, title in zip(axes, ["noisy image", "assignment"], strict=True):
    axis.set(title=title, xticks=[], yticks=[])

# %%
# Every operation has several implementations: the published formula, literally; good plain PyTorch; and compiled
# kernels. They can be compared at any time, and an implementation that you ask for and that cannot run says why.

results = {}
for name in ("reference", "torch", "auto"):
    with sf.use_backend(name), torch.no_grad():
        results[name] = network(images)
print({name: float((value - results["reference"]).abs().max()) for name, value in results.items()})

# %%
# What runs for each operation on this machine, and why not the others:

for name, operation in sf.ops.operations().items():
    print(f"{name}: {', '.join(operation.kernels)}")

"""
A scene larger than memory
==========================

A scene stays in its file and is read piece by piece, in training and in prediction. `max_memory` says how much a
prediction may use beside what the process holds already. The file here is small, so that this page is quick.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from tensorly.datasets import load_indian_pines

import spectrafuse as sf

folder = Path(tempfile.mkdtemp())
cube = np.moveaxis(np.asarray(load_indian_pines().tensor), 2, 0)[:, :64, :64].astype(np.float32)
large = np.lib.format.open_memmap(folder / "scene.npy", "w+", np.float32, (200, 64 * 4, 64 * 2))
for row in range(4):
    for column in range(2):
        large[:, 64 * row : 64 * row + 64, 64 * column : 64 * column + 64] = cube
large.flush()
print(f"{(folder / 'scene.npy').stat().st_size / 2**20:.0f} MiB in the file")

# %%
# Training takes small windows from all over the file. How much of it the file has does not matter.

segmentation = sf.DeepGlobalClustering(n_clusters=4, max_epoch=3, random_state=0)
segmentation.fit(folder / "scene.npy", layout="chw")

# %%
# The labels go straight into a file too, strip by strip; what comes back is mapped from it, not held in memory.

out = folder / "labels.npy"
labels = segmentation.predict(folder / "scene.npy", layout="chw", max_memory=16 * 2**20, out=out)
print(type(labels).__name__, labels.shape)

figure, axis = plt.subplots(figsize=(4, 6), layout="constrained")
axis.imshow(labels, cmap="tab10", interpolation="nearest")
axis.set(xticks=[], yticks=[], title="the same fields eight times")

# %%
# Strips overlap by as much as a label depends on, so that the labels are those of the whole scene. With too little
# memory for one strip the prediction does not begin, and says how much it needs.

assert np.array_equal(labels, segmentation.predict(folder / "scene.npy", layout="chw"))
try:
    segmentation.predict(folder / "scene.npy", layout="chw", max_memory=1000)
except ValueError as error:
    print(error)

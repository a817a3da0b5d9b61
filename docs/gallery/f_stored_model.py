"""
A stored model on new data
==========================

A fitted model is a folder: save it once, apply it to every scene or every batch of spectra that comes later. The
folders have the published packages' formats, so that these read them, and folders that they wrote load here. On the
command line: ``spectrafuse apply result/ new.mat --output new/``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from tensorly.datasets import load_indian_pines

import spectrafuse as sf

folder = Path(tempfile.mkdtemp())
cube = np.asarray(load_indian_pines().tensor)
west, east = cube[:64, :72], cube[:64, 72:]

segmentation = sf.DeepGlobalClustering(n_clusters=4, max_epoch=3, random_state=0)
segmentation.fit(west, layout="hwc").save(folder / "ground")
print(sorted(path.name for path in (folder / "ground").iterdir()))

# %%
# Another day, another scene of the same instrument. It must have as many bands as the training scenes had; that is
# checked.

model = sf.DeepGlobalClustering.load(folder / "ground")
labels = model.predict(east, layout="hwc")
print(labels.shape, "pixels in clusters", np.unique(labels))

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for axis, half, title in zip(axes, [west, east], ["trained on", "new"], strict=True):
    axis.imshow(model.predict(half, layout="hwc"), cmap="tab10", vmin=0, vmax=9, interpolation="nearest")
    axis.set(title=title, xticks=[], yticks=[])

# %%
# The same for spectra: the model keeps its components, and gives their concentrations in new samples.

rng = np.random.default_rng(0)
pure = rng.gamma(0.5, size=(3, 120))


def measured(samples):
    amounts = rng.dirichlet([0.5, 0.5, 0.5], size=samples)
    return amounts, amounts @ pure + rng.normal(0, 0.01, (samples, 120))


sf.EBgMCR(random_state=0).fit(measured(60)[1]).save(folder / "process")

amounts, spectra = measured(10)
mcr = sf.EBgMCR.load(folder / "process")
concentrations = mcr.transform(spectra)
print(concentrations.shape, f"R2 of the spectra: {mcr.score(spectra):.4f}")

# %%
# What a new sample holds that the model has never seen is in the residual.

foreign = spectra.copy()
foreign[:, 40:44] += 1.0
for name, given in (("known substances", spectra), ("with something new", foreign)):
    rest = given - mcr.inverse_transform(mcr.transform(given))
    print(f"{name}: residual {rest.std():.3f}")

"""
Segment a scene
===============

Indian Pines is a scene of fields and woods seen from the air: 145 x 145 pixels, 200 bands. We look for 16 kinds of
ground in it without giving a single label, and compare with the ground truth, a map that
people made on foot.
"""

import matplotlib.pyplot as plt
import numpy as np
from tensorly.datasets import load_indian_pines

import spectrafuse as sf
from spectrafuse.dgc import metrics

scene = load_indian_pines()
cube = np.asarray(scene.tensor)  # rows, columns, bands
truth = np.asarray(scene.ticks[0]).astype(int) - 1  # -1: nobody looked there
print("rows, columns, bands:", cube.shape)

# %%
# `layout` says how the axes of an array are ordered: rows (h), columns (w), bands (c). Files mostly say it themselves.
# No network is trained, which `network=True` would do.

segmentation = sf.DeepGlobalClustering(n_clusters=16, random_state=0)
labels = segmentation.fit(cube, layout="hwc").predict(cube, layout="hwc")
print(segmentation.stop_reason_)

# %%
# The numbers of clusters mean nothing by themselves. To compare, each class of the map is given the cluster that covers
# it best.

matched = metrics.apply_mapping(labels, metrics.match_clusters(labels, truth)).numpy()
known = truth >= 0
print(f"{np.mean(matched[known] == truth[known]):.0%} of the labeled pixels are right, without any label")

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
color = cube[:, :, [29, 19, 9]].astype(float)
axes[0].imshow((color / np.quantile(color, 0.99)).clip(0, 1))
axes[1].imshow(np.where(known, matched, np.nan), cmap="tab20", vmin=0, vmax=19, interpolation="nearest")
axes[2].imshow(np.where(known, truth, np.nan), cmap="tab20", vmin=0, vmax=19, interpolation="nearest")
for axis, title in zip(axes, ["three bands as colors", "clusters", "ground truth"], strict=True):
    axis.set(title=title, xticks=[], yticks=[])

# %%
# How clear each pixel is: 1 where no other cluster comes near, 0 where two fit alike.

_, confidence = segmentation.predict_with_confidence(cube, layout="hwc")
figure, axis = plt.subplots(figsize=(4, 3.6), layout="constrained")
figure.colorbar(axis.imshow(confidence, vmin=0, vmax=1), label="how clear")
axis.set(xticks=[], yticks=[])

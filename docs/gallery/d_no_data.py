"""
Pixels without data
===================

Scenes have borders without data, clouds, dead lines. Such pixels are used for nothing and get the label -1.
"""

import matplotlib.pyplot as plt
import numpy as np
from tensorly.datasets import load_indian_pines

import spectrafuse as sf

cube = np.asarray(load_indian_pines().tensor)[:64, :64].astype(np.float32)
cube[30:34] = -9999  # lines that the sensor lost
rows, columns = np.indices((64, 64))
cloud = (rows - 50) ** 2 + (columns - 20) ** 2 < 90

# %%
# What a value says about missing data goes into `nodata`, what a map says into `mask`. Files often say it themselves:
# then nothing needs to be given.

segmentation = sf.DeepGlobalClustering(n_clusters=4, nodata=-9999, max_epoch=3, random_state=0)
segmentation.fit(cube, mask=cloud, layout="hwc")
labels = segmentation.predict(cube, mask=cloud, layout="hwc")
print((labels == -1).sum(), "pixels without data;", cloud.sum() + 4 * 64, "were expected")

figure, axis = plt.subplots(figsize=(4, 4), layout="constrained")
axis.imshow(np.where(labels < 0, np.nan, labels), cmap="tab10", interpolation="nearest")
axis.set(xticks=[], yticks=[], title="white: no data")

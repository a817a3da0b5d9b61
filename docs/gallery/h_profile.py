"""
What takes the time
===================

`spectrafuse profile` in front of `segment` or `unmix` runs the same command, and says what took how long, how near that
is to what the machine can do, and what would help.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
spectra = rng.dirichlet([0.5] * 4, size=80) @ rng.gamma(0.5, size=(4, 200))
spectra += rng.normal(0, 0.01, spectra.shape)
np.save(folder / "spectra.npy", spectra)

words = "spectrafuse profile unmix spectra.npy --pool-size 64 --max-epoch 40 --output result"
command = [sys.executable, "-m", *words.split()]
done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
print(done.stdout)

# %%
# The same as a picture, beside the table and traces in the folder:

figure, axis = plt.subplots(figsize=(10, 5), layout="constrained")
axis.imshow(plt.imread(next((folder / "result").glob("*.png"))))
axis.axis("off")

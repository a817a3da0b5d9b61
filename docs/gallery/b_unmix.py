"""
Unmix spectra
=============

Forty mixtures of three substances. Nobody says that there are three; the spectra have to.
"""

import matplotlib.pyplot as plt
import numpy as np

import spectrafuse as sf
from spectrafuse.mcr import match_components

rng = np.random.default_rng(0)
axis = np.linspace(400.0, 1800.0, 350)  # Raman shift, 1/cm


def substance(*bands):
    return sum(height * np.exp(-0.5 * ((axis - center) / 18) ** 2) for center, height in bands)


pure = np.array(
    [
        substance((520, 0.6), (840, 1.0), (1125, 0.8), (1460, 0.5)),
        substance((620, 0.9), (1000, 1.0), (1200, 0.3), (1600, 0.7)),
        substance((700, 0.4), (860, 0.7), (1050, 1.0), (1340, 0.9)),
    ]
)
amounts = rng.dirichlet([0.3, 0.3, 0.3], size=40)
spectra = amounts @ pure + rng.normal(0, 0.01, (40, len(axis)))

# %%
# One call finds how many there are, what their spectra look like, and how much of each is in every sample.

mcr = sf.EBgMCR(random_state=0).fit(spectra)
concentrations = mcr.transform(spectra)
print(mcr.chosen_reason_)

# %%
# Components come in no order, and at a size of their own: each is scaled to length one, and its concentrations carry
# the rest. `match_components` pairs them with known spectra.

match = match_components(mcr.components_, pure)
print("cosines with the true spectra:", match.cosine.round(4))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for found, true in zip(match.found, match.true, strict=True):
    size = np.linalg.norm(pure[true])
    left.plot(axis, mcr.components_[found] * size, label=f"found {found + 1}")
    left.plot(axis, pure[true], "k:", linewidth=0.8)
    right.plot(amounts[:, true], concentrations[:, found] / size, "o", markersize=4)
left.set(xlabel="Raman shift (1/cm)", title="found spectra; dotted: the true ones")
left.legend()
right.axline((0, 0), slope=1, color="grey", linewidth=0.8)
right.set(xlabel="true concentration", ylabel="found")

# %%
# How sure the count is: :doc:`/guide/count_evidence` says how to read this.

evidence = mcr.count_evidence_
print("rise:", round(evidence["rise"], 1))
print("rank check:", evidence["rank_check"])
print("cautions:", evidence["cautions"])

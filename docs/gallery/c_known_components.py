"""
Start from known components
===========================

Often some of the substances are known: a solvent, a product whose spectrum is in a library. What is known is given to
the fit, and the fit looks for the rest.
"""

import matplotlib.pyplot as plt
import numpy as np

import spectrafuse as sf
from spectrafuse.mcr.constraints import Closure, Unimodal

rng = np.random.default_rng(1)
axis = np.linspace(200.0, 400.0, 201)  # nm
time = np.linspace(0.0, 10.0, 60)  # minutes


def bands(*peaks):
    return sum(height * np.exp(-0.5 * ((axis - center) / width) ** 2) for center, width, height in peaks)


educt, between, product = pure = np.array(
    [
        bands((230, 12, 1.0), (280, 15, 0.6)),
        bands((250, 14, 0.9), (320, 18, 0.5)),
        bands((265, 16, 0.7), (350, 20, 1.0)),
    ]
)
# A -> B -> C, of first order
slow, fast = 0.35, 0.9
first = np.exp(-fast * time)
second = fast / (slow - fast) * (np.exp(-fast * time) - np.exp(-slow * time))
amounts = np.column_stack([first, second, 1 - first - second])
spectra = amounts @ pure + rng.normal(0, 0.004, (60, 201))

# %%
# The educt's spectrum is known and stays as it is (`fixed`). Of the concentrations we know that they sum to one, and
# that the substance in between comes and goes once.

mcr = sf.EBgMCR(random_state=0, constraints=[Closure(1.0), Unimodal()])
concentrations = mcr.fit_transform(spectra, components=educt[None], fixed=[0])
print(mcr.n_components_, "components, of which number 0 is the known one:", mcr.component_ids_)

# %%
# Each constraint says whether it had anything to do, and what it costs in fit.

for report in mcr.constraint_reports_:
    print(report)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.plot(axis, mcr.components_.T)
left.plot(axis, pure.T, "k:", linewidth=0.8)
left.set(xlabel="wavelength (nm)", title="found spectra; dotted: the true ones")
right.plot(time, concentrations)
right.plot(time, amounts, "k:", linewidth=0.8)
right.set(xlabel="time (min)", title="found concentrations; dotted: the true ones")

# %%
# What the spectra leave open is not lost in one answer: the range of solutions that fit as well.

print(*mcr.feasible_bands(spectra).sentences, sep="\n")

"""
In the tools that chemists use
==============================

The same estimator inside HyperSpy, in the call of pyMCR, in scikit-learn's pipelines, with pandas and with xarray.
"""

import hyperspy.api as hs
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

import spectrafuse as sf
from spectrafuse.compat.pymcr import McrAR

rng = np.random.default_rng(0)
axis = np.linspace(400, 700, 60)
pure = np.array([np.exp(-0.5 * ((axis - c) / w) ** 2) for c, w in ((470, 30), (550, 35), (620, 40))])
amounts = rng.dirichlet([0.4, 0.4, 0.4], size=(6, 7))
scene = amounts @ pure + rng.normal(0, 0.003, (6, 7, 60))
spectra = scene.reshape(-1, 60)

# %%
# **HyperSpy**: a decomposition by an object, of signals in memory or lazy ones.

signal = hs.signals.Signal1D(scene)
signal.decomposition(algorithm=sf.EBgMCR(n_components=3), output_dimension=3, print_info=False)
print(signal.get_decomposition_factors(), signal.get_decomposition_loadings())

# %%
# **pyMCR**: the call of its class, ``McrAR().fit(D, C=..., ST=..., c_fix=..., st_fix=...)``. Here the first spectrum is
# known, and stays.

solver = McrAR()
solver.fit(spectra, ST=np.vstack([pure[0], spectra[5], spectra[30]]), st_fix=[0])
print(solver.C_opt_.shape, solver.ST_opt_.shape)

# %%
# **scikit-learn and pandas**: steps before it, columns with names, and a search over a setting. The score is the R2 of
# spectra that took no part in the fit.

pipeline = make_pipeline(MaxAbsScaler(), sf.EBgMCR(n_components=3)).set_output(transform="pandas")
print(pipeline.fit_transform(spectra).head(3))

search = GridSearchCV(sf.EBgMCR(), {"n_components": [2, 3]}, cv=2).fit(spectra)
print("best:", search.best_params_, f"R2 {search.best_score_:.4f}")

# %%
# **xarray**: dimensions and coordinates in, dimensions and coordinates out.

cube = xr.DataArray(scene, dims=("y", "x", "wavelength"), coords={"y": 0.5 * np.arange(6), "wavelength": axis})
maps = sf.EBgMCR(n_components=3).fit_transform(cube)
print(maps.sizes)

figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for i, place in enumerate(axes):
    maps.isel(component=i).plot(ax=place, add_colorbar=False)

"""
In place of the published packages
==================================

A script that was written for `ebgmcr` or `hsi_global_clustering` runs as it is on the operations of this package:

.. code-block:: bash

   python -m spectrafuse.compat train.py --data spectra.npy

or, from Python, by the same names in `spectrafuse.compat`. What follows is written as for the published `ebgmcr`.
"""

import matplotlib.pyplot as plt
import torch

from spectrafuse.compat import ebgmcr

torch.manual_seed(0)
components = torch.rand(4, 100)
concentrations = torch.rand(48, 4) * (torch.rand(48, 4) > 0.4)
spectra = concentrations @ components

solver = ebgmcr.DenseEBgMCR(32, mini_batch_size=16, max_epoch=60, checkpoint_criterion=None)
solver.fit(spectra)

with torch.no_grad():
    found = solver.parse_pattern(spectra)
used = found["select_prob"].any(dim=0)
print(int(used.sum()), "components are used after these few epochs")

figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.plot(spectra[0], label="spectrum 0")
axis.plot(found["reconstruction"][0], label="as the solver describes it")
axis.legend()

# %%
# Its random numbers come from torch's global generator, in the published order and number, so that a seed gives what it
# gives there, up to rounding. On the CPU training goes through prepared kernel calls as long as nothing of the script's
# own has to be called in between:

from spectrafuse.compat.ebgmcr.prepared import why_autograd  # noqa: E402

print("what forbids the fast way:", why_autograd(solver))

# %%
# Where the published package itself is installed, `spectrafuse.patch(module)` puts the operations under it, until the
# end of a `with` block or its `undo()`. What differs from the published packages is listed on
# :doc:`/generated/published_packages`.

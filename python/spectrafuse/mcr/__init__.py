"""EB-gMCR: spectral unmixing that finds the number of components by itself (arXiv 2507.23600)."""

"""How many components there are, and their spectra, after training."""

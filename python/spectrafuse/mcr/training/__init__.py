"""Training of an unmixing model."""

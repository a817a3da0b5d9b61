"""The same algebra as `reference` in good plain PyTorch: the `torch` implementation, on any device."""

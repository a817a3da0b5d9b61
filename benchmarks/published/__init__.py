"""What the published code does in a training step, an epoch and the encoder, literally: 1x of every ratio."""

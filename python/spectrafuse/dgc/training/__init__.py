"""Training of a segmentation."""

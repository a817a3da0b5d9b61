"""Labels of scenes of any size."""

"""What everything stands on: the compiled extensions, Triton, CUDA graphs, checks of arguments, progress."""

"""Triton kernels, one operation a file. Imported by `spectrafuse.ops` when a kernel is first needed."""

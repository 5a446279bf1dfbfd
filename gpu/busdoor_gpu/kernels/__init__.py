"""Triton kernels, one file per operation: formula, kernel, wrapper, PyTorch reference."""

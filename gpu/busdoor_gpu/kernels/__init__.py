"""Triton kernels, one file per operation: its formula, kernel, wrapper, and plain PyTorch reference."""

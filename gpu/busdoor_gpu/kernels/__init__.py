"""Triton kernels, one operation a file: its formula, its kernel, its wrapper, and the plain PyTorch reference."""

"""Benchmarks of kernels and engine: correctness first, then time."""

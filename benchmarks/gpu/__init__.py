"""Benchmarks: correctness first, then time."""

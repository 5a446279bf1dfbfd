"""The engine on real hardware: Triton kernels over a paged KV cache, and what runs them.

No GPU is touched at import.
"""

"""KV memory: paged, with a prefix cache, contiguous."""

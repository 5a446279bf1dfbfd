"""The engine: a model, its cache and its slots on one device."""

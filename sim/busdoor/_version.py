"""The version, read by hatch and written into every result."""

__version__ = "0.1.0"

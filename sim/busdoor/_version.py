"""The version, read by hatch and written into every result."""

__version__ = "0.2.0"

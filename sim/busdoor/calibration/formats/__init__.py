"""Measured runs in the files of other tools, one reader per file."""

from busdoor.calibration.formats.registry import MEASURED_FORMATS, measured_format

__all__ = ["MEASURED_FORMATS", "measured_format"]

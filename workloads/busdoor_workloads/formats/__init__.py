"""Reading and writing trace files: ours and those that others publish."""

from busdoor_workloads.formats.base import Format
from busdoor_workloads.formats.read import detect_format, read_trace
from busdoor_workloads.formats.registry import FORMATS
from busdoor_workloads.formats.write import format_to_write, largest_rounding_s, write_trace

__all__ = [
    "FORMATS",
    "Format",
    "detect_format",
    "format_to_write",
    "largest_rounding_s",
    "read_trace",
    "write_trace",
]

"""From measurements to a step time, and from a step time back to the measurements: calibrate and validate."""

from busdoor.calibration.file import Calibration
from busdoor.calibration.fit import calibrate

__all__ = ["Calibration", "calibrate"]

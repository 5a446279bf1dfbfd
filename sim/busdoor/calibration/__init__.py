"""From measurements to a step time, and back to them: calibrate and validate."""

from busdoor.calibration.calibration import Calibration
from busdoor.calibration.fit import calibrate
from busdoor.calibration.from_requests import calibrate_from_requests
from busdoor.calibration.import_logs import load_measured
from busdoor.calibration.scaled_from_requests import calibrate_scaled
from busdoor.calibration.transfer import transfer

__all__ = [
    "Calibration",
    "calibrate",
    "calibrate_from_requests",
    "calibrate_scaled",
    "load_measured",
    "transfer",
]

"""From measurements to a step time, and from a step time back to the measurements: calibrate and validate."""

from busdoor.calibration.calibration import Calibration
from busdoor.calibration.fit import calibrate
from busdoor.calibration.from_requests import calibrate_from_requests
from busdoor.calibration.import_logs import load_measured
from busdoor.calibration.transfer import transfer
from busdoor.validation.errors import step_errors
from busdoor.validation.regression import drifted, recorded_errors
from busdoor.validation.run import RunValidation
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation

__all__ = [
    "Calibration",
    "RunValidation",
    "Validation",
    "calibrate",
    "calibrate_from_requests",
    "drifted",
    "load_measured",
    "recorded_errors",
    "step_errors",
    "transfer",
    "validate",
]

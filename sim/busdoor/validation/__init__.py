"""Measured runs simulated again, and how far off each quantity is."""

from busdoor.validation.errors import step_errors
from busdoor.validation.regression import drifted, recorded_errors
from busdoor.validation.run import RunValidation
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation

__all__ = ["RunValidation", "Validation", "drifted", "recorded_errors", "step_errors", "validate"]

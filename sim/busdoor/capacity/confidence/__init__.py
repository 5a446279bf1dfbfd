"""How sure an answer is: sampling, calibration and the model's error, each apart."""

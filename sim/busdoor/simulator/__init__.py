"""One run: clients, the SimPy server, stretches of equal iterations, and the recorder."""

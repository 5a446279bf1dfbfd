"""A server's twin: observe some rates, calibrate, predict others, observe, compare."""

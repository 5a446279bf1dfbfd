"""Real servers: observe, record iterations, make a twin; the simulator behind the API."""

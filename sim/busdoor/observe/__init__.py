"""Real servers: observe one, record its iterations, make a twin of it; and the simulator behind the same API."""

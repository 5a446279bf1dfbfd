"""Control variates of capacity's estimates: simple queues with the same requests as the runs."""

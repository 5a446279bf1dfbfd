"""Control variates of capacity's estimates: simple queues that are fed the same requests as the runs."""

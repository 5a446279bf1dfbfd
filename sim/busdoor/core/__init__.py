"""Words and small tools that every room uses: requests, batches, names, units, files, signals."""

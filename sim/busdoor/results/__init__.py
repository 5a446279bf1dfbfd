"""What a run leaves: tables, metrics, a page and a Perfetto trace."""

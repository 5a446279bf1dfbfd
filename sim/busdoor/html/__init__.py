"""Pages in one HTML file."""

"""Commands that look things up: what there is by name, and the schema of a configuration."""

"""The commands for hardware."""

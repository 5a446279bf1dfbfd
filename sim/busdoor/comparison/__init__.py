"""Policies side by side on the same draws."""

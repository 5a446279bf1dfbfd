"""Read tables from files and data frames, and check their columns: all that a trace needs, as plain fields."""

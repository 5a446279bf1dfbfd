"""Read tables from files and data frames; check columns: a trace's plain fields."""

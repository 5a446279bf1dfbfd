"""`busdoor trace`: describe, generate, convert and fetch request traces."""

"""Rows: what is stored and how it is read and written. Knows SQL, nothing above it."""

"""Benchmarks: ratios and medians from one run, never a single absolute time."""

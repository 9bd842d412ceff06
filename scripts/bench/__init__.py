"""Benchmarks. They report ratios and medians of interleaved rounds of a run, never a single absolute time."""

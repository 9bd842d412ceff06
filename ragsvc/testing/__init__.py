"""Fakes of the ports, reference indexes, and a runner of the real service, for tests and benchmarks."""

"""Fakes of the ports, reference indexes, PDF builders, and a runner of the real service, for tests and benchmarks."""

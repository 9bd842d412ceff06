"""Evaluates retrieval and answers on public data sets: loading, searching, baselines and the report."""

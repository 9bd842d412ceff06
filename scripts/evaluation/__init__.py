"""Retrieval and answers, judged on public sets of questions: data, measures, the tried settings, the report."""

"""Evaluates retrieval on questions whose answers are known: reading questions, searching, measures and the report.

Knows the service only through the ``EvaluatedService`` protocol, and nothing of the command line or a terminal.
"""

"""Requests and responses whose bytes pass through unchanged."""

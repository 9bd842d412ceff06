"""ragsvc: a private, OpenAI-compatible document service."""

__version__ = "0.1.0"

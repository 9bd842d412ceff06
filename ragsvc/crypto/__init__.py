"""Protocols of encrypted requests, and encryption at rest. No HTTP framework, no database."""

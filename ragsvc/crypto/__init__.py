"""Encrypted transport and encryption at rest: pure protocol code, no HTTP framework, no database."""

"""Backends behind the ports: any OpenAI-compatible provider, and the built-in extractive answerer."""

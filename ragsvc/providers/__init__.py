"""Adapters of the port ``ModelProvider``: OpenAI-compatible providers, and the models in this process."""

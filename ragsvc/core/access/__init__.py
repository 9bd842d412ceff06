"""API keys, principals and the limits of a key."""

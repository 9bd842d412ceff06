"""End-to-end encrypted requests and responses."""

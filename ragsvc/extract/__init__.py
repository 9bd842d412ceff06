"""Untrusted files in, pages and passages out. Knows no HTTP, no rows and no embedding model.

``parser`` is the port's implementation and runs in the service; ``child`` and everything it calls (``document`` and
below) run in child processes that may die, hang or swell without harm.
"""

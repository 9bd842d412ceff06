"""Extracts pages and passages from untrusted files. Knows no HTTP, no database and no embedding model.

``parser`` implements the port and runs in the service. ``parser_child`` and everything that it calls (``read_file`` and
below) run in child processes, which may crash, hang or run out of memory without affecting the service.
"""

"""Where logs go: standard error, since standard output belongs to results."""

from __future__ import annotations

import logging
import sys


def log_to_standard_error(level: str) -> None:
    """Send all logs to standard error, one line each; those of libraries from warnings on."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("ragsvc").setLevel(level.upper())

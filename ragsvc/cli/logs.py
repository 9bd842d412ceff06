"""Logs go to standard error; standard output is for results."""

from __future__ import annotations

import logging
import sys


def log_to_standard_error(level: str) -> None:
    """Log to standard error at ``level``; libraries log warnings and errors only."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("ragsvc").setLevel(level.upper())
    if level != "error":  # a download takes minutes, also in commands that log warnings only
        logging.getLogger("ragsvc.inference.model_download").setLevel(logging.INFO)

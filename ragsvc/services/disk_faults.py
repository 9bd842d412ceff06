"""Background work that outlives faults of the disk: they are logged, and the work is tried again at its next turn."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from ragsvc.core.errors import Overloaded, StorageFull


@contextlib.contextmanager
def logging_disk_faults(logger: logging.Logger, failure: str) -> Generator[None]:
    """Log a fault of the disk in the block as a warning; ``failure`` says what could not be done."""
    try:
        yield
    except (StorageFull, Overloaded) as error:  # on a full disk, reads can fail too
        logger.warning("%s, it is tried again: %s", failure, error.message)
    except OSError as error:
        logger.warning("%s, it is tried again: %s", failure, error.strerror)

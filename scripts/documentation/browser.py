"""The browser that tools of the repository drive."""

from __future__ import annotations

import os
import shutil

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str | None:
    """The path of Chromium: the variable ``RAGSVC_TEST_BROWSER``, else Debian's program."""
    named = os.environ.get("RAGSVC_TEST_BROWSER")
    return named or next((found for name in _PROGRAMS if (found := shutil.which(name))), None)

"""Binds functions of pdfium for calls in large numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pypdfium2.raw as pdfium

PdfiumHandle = Any
"""A document, page, text page, object, bitmap or annotation of pdfium, or of pypdfium2: neither has usable types."""

HANDLE, INT, OUT = ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p


def bind(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:  # noqa: ANN401 - ctypes types
    """Bind a pdfium function to plain addresses: pypdfium2's prototypes check each pointer and take twice the time."""
    address = ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value
    return ctypes.PYFUNCTYPE(result, *arguments)(address or 0)


def address_of(handle: PdfiumHandle) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0

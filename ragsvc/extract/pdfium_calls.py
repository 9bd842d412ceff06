"""Binds functions of pdfium for calls in large numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pypdfium2.raw as pdfium

PdfiumHandle = Any
"""A document, page, text page, object, bitmap or annotation of pdfium, or of pypdfium2: neither has usable types."""

Reference = Any
"""An argument that ctypes passes as it is: a handle, or the place of a result."""

HANDLE, INT, DOUBLE = ctypes.c_void_p, ctypes.c_int, ctypes.c_double


def bind(name: str, result: Any, *, of_object: bool = False) -> Callable[..., Any]:  # noqa: ANN401 - ctypes types
    """Bind a pdfium function without prototypes: ctypes takes as long to check six arguments as pdfium for the call.

    Arguments are references and C integers, and nothing checks them. The first is the address of a page object if
    ``of_object``.
    """
    address = ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value
    return ctypes.PYFUNCTYPE(result, *[HANDLE] * of_object)(address or 0)


def reference_to(handle: PdfiumHandle) -> Reference:
    """A handle as an argument of bound functions."""
    return HANDLE.from_param(ctypes.cast(handle, HANDLE).value or 0)


def places_of(results: ctypes.Array[Any]) -> tuple[Reference, ...]:
    """The places of the elements of an array, as arguments of bound functions."""
    size = ctypes.sizeof(results) // len(results)
    return tuple(ctypes.byref(results, size * index) for index in range(len(results)))

"""Detect whether onnxruntime's int8 matrix products saturate on this processor.

onnxruntime picks a kernel for uint8 by int8 products from the processor's instruction sets. On x86, AVX-512 VNNI,
AVX-VNNI and AMX sum four products in 32 bits. AVX2 and AVX-512 without VNNI use ``vpmaddubsw``, which saturates the sum
of two products at 16 bits. SSE2 and Arm widen first and are exact. The check computes one product that saturates
wherever saturation exists, so it follows the kernel that runs, not a list of instruction sets.
"""

from __future__ import annotations

import importlib.resources
from functools import cache
from typing import Any

import numpy as np

_INPUTS, _OUTPUTS = 64, 32


@cache
def int8_products_saturate() -> bool:
    """``True`` if uint8 by int8 products are inexact for large values; measured once per process, in milliseconds."""
    import onnxruntime  # noqa: PLC0415 - native: loaded when used

    graph = (importlib.resources.files("ragsvc.inference") / "data" / "int8-product.onnx").read_bytes()
    session: Any = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    weights = np.full((_INPUTS, _OUTPUTS), 127, np.int8)
    for rows in (1, 8):  # a single row takes another kernel
        activations = np.full((rows, _INPUTS), 255, np.uint8)
        (product,) = session.run(None, {"activations": activations, "weights": weights})
        if (product != 255 * 127 * _INPUTS).any():
            return True
    return False

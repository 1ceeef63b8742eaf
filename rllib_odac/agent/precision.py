"""How exactly PyTorch computes for a while, set and set back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treats denormal numbers as zero, in this thread and for this while only.

    Adam's moments of weights that no longer learn decay into them, and a CPU counts many times
    slower with denormal numbers: a tenth of an update's time after 10,000 updates.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Lets matrix products of float32 numbers be this exact for a while: see PyTorch's setting.

    Args:
        precision: Of PyTorch's names, or "auto": "high" on a GPU, "highest" on a CPU.
        device: Where they are computed.
    """
    if precision == "auto":
        precision = "high" if device.type == "cuda" else "highest"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

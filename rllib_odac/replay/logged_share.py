"""Draws of which a fixed share comes from a log, however much else there is."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn_numbers(fraction: Tensor, total: Tensor, logged: Tensor, share: float | None) -> Tensor:
    """Numbers (B,) from 0 on of what is drawn, the log's being the first ones.

    Args:
        fraction: (B,) uniform in [0, 1).
        total: () how much there is.
        logged: () how much of it is the log's.
        share: Of draws from the log, while there is some of both; None draws all alike.
    """
    number = fraction * total
    if share is not None:
        others = total - logged
        of_log = fraction / share * logged
        of_others = logged + (fraction - share) / (1 - share) * others
        mixed = torch.where(fraction < share, of_log, of_others)
        number = torch.where((logged > 0) & (others > 0), mixed, number)
    return number.long()

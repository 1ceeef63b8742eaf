"""The point that goals are measured from and their unit, where nobody names one."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor


def goal_units(moments: Iterable[Tensor], scale: float | None) -> tuple[Tensor, float]:
    """Centre (G,) of goals seen and their unit, in the environment's units.

    Args:
        moments: (3, G) number, sum and sum of squares of the goals seen, and of what was achieved,
            which is looked at where all goals are alike.
        scale: The unit, or None for the goals' half-width in the direction in which they spread
            most.

    Raises:
        ValueError: If they are all alike.
    """
    for count, total, squares in moments:
        center = total / count
        if scale is not None:
            return center, scale
        deviation = (squares / count - center.square()).clamp_min(0).sqrt().max()
        half_width = math.sqrt(3) * float(deviation)  # of a uniform distribution
        if half_width > 1e-6:
            return center, half_width
    raise ValueError(
        "goal_scale is 'auto', but the environment names none and the goals seen so far are all "
        "alike; it must be a positive number in the task's units."
    )

"""The point that goals are measured from and their unit, where nobody names one."""

from __future__ import annotations

import math

from torch import Tensor


def goal_units(moments: Tensor, scale: float | None) -> tuple[Tensor, float]:
    """Centre (G,) of goals seen and their unit, in the environment's units.

    Args:
        moments: (3, G) number, sum and sum of squares of the goals seen.
        scale: The unit, or None for the goals' half-width in the direction in which they spread
            most.

    Raises:
        ValueError: If they are all alike.
    """
    count, total, squares = moments
    center = total / count
    if scale is None:
        deviation = (squares / count - center.square()).clamp_min(0).sqrt().max()
        scale = math.sqrt(3) * float(deviation)  # half-width of a uniform distribution
        if scale < 1e-6:
            raise ValueError(
                "goal_scale is 'auto', but the environment names none and the goals seen so far "
                "are all alike; it must be a positive number in the task's units."
            )
    return center, scale

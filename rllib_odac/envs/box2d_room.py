"""The room of Box 2D: its walls, and how they stop a ball. Pure functions on arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float32]

BOUNDARY = 4.0  # the centre stays within |x|, |y| <= 4
BALL_RADIUS = 0.5
TARGET_RADIUS = 0.6
CLEARANCE = 0.01  # a ball stopped by a wall rests this far from touching it

# The solid parts as (x_min, y_min, x_max, y_max). The bars and the U's, which open downwards, are
# lines grown by half a unit; the ball's radius comes on top in `blocked_regions`.
SOLIDS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "box": ((-2.0, -2.0, 2.0, 2.0),),
    "bar": ((-2.5, -0.5, 2.5, 0.5),),
    "easy_u": ((1.5, -1.0, 2.5, 1.5), (-2.5, -1.0, -1.5, 1.5), (-2.5, 0.5, 2.5, 1.5)),
    "big_u": ((1.5, -2.5, 2.5, 1.5), (-2.5, -2.5, -1.5, 1.5), (-2.5, 0.5, 2.5, 1.5)),
    "none": (),
}


def blocked_regions(walls: str) -> FloatArray:
    """Where the centre of the ball cannot be: the solids of `walls` grown by the ball's radius.

    Returns:
        Array (W, 2, 2): the lower-left and the upper-right corner of each of W rectangles.

    Raises:
        ValueError: `walls` is not a name in `SOLIDS`.
    """
    if walls not in SOLIDS:
        raise ValueError(f"Box2D knows no walls {walls!r}; choose one of {', '.join(SOLIDS)}.")
    corners = np.array(SOLIDS[walls], dtype=np.float32).reshape(-1, 2, 2)
    return corners + np.array([[-BALL_RADIUS], [BALL_RADIUS]], dtype=np.float32)


def is_blocked(xy: ArrayLike, regions: FloatArray) -> NDArray[np.bool_]:
    """Whether positions (..., 2) lie strictly inside one of the blocked `regions`; shape (...)."""
    points = np.asarray(xy, dtype=np.float32)[..., None, :]
    inside = (points > regions[:, 0]) & (points < regions[:, 1])
    return np.asarray(inside.all(axis=-1).any(axis=-1))


def sample_free(rng: np.random.Generator, count: int, regions: FloatArray) -> FloatArray:
    """`count` positions (count, 2), uniform over the part of the room that is not blocked."""
    xy = rng.uniform(-BOUNDARY, BOUNDARY, (count, 2)).astype(np.float32)
    while (again := is_blocked(xy, regions)).any():
        xy[again] = rng.uniform(-BOUNDARY, BOUNDARY, (int(again.sum()), 2))
    return xy


def step_positions(xy: FloatArray, move: FloatArray, regions: FloatArray) -> FloatArray:
    """Move positions and let the walls stop them.

    A wall stops a move at one of its edges if the bounding box of the move overlaps that edge, and
    the move starts on or outside the edge and does not lead away from it. The coordinate across the
    edge then becomes the edge's, plus `CLEARANCE` outwards; the other one is kept, so the ball
    slides. As the rule asks for the bounding box and not for the path, a corner can stop a ball
    that a straight line would take just past it. No move, however long, ends inside a wall or
    passes through one. Walls act one after another, each on the end point that the one before has
    left, and the boundary of the room acts last.

    Args:
        xy: positions (..., 2).
        move: wished displacements (..., 2), the action times its scale.
        regions: blocked rectangles (W, 2, 2), see `blocked_regions`.

    Returns:
        The new positions (..., 2); `xy` is left as it is.
    """
    end = xy + move
    for low, high in regions:
        overlap = (np.minimum(xy, end) <= high) & (np.maximum(xy, end) >= low)
        # Axes swapped: an edge across x is met where the move overlaps the wall's extent along y.
        facing = overlap[..., ::-1]
        # Both axes look at the move as it came: clamping one first would hide the other's edge.
        from_above = facing & (xy >= high) & (end <= high)
        from_below = facing & (xy <= low) & (end >= low)
        end = np.where(from_above, high + CLEARANCE, np.where(from_below, low - CLEARANCE, end))
    stopped: FloatArray = np.minimum(np.maximum(end, -BOUNDARY), BOUNDARY)
    return stopped


def goal_distance(achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.float64]:
    """Euclidean distances (...) of goals (..., 2), in float64 whatever the input's type."""
    delta = np.asarray(achieved_goal, dtype=np.float64) - np.asarray(desired_goal, np.float64)
    return np.asarray(np.sqrt(delta[..., 0] * delta[..., 0] + delta[..., 1] * delta[..., 1]))

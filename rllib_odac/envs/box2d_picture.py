"""Pictures of the Box 2D room, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from rllib_odac.envs.box2d_room import BALL_RADIUS, BOUNDARY, TARGET_RADIUS

# Okabe and Ito's blue and orange stay apart for every common kind of colour blindness.
BLUE, PALE_BLUE = (0, 114, 178), (190, 218, 236)
ORANGE, PALE_ORANGE = (230, 159, 0), (250, 231, 191)
GREY, WHITE = (90, 90, 90), (255, 255, 255)

SMOOTH = 3  # drawn this much larger and averaged down, which smooths the edges
MARGIN = 0.12  # width of the outer wall, in the room's units


def draw_room(
    trail: NDArray[np.float32],
    goal: ArrayLike,
    solids: Iterable[tuple[float, float, float, float]],
    size: int = 400,
) -> NDArray[np.uint8]:
    """Draw the goal in orange, the ball in blue at the end of its trail and the walls in grey.

    The ring has the target's radius and the white dot is the ball's centre: dot in ring is success.

    Args:
        trail: positions (T, 2) of the episode so far, the present one last.
        goal: position (2,).
        solids: walls as (x_min, y_min, x_max, y_max).
        size: width and height in pixels.

    Returns:
        uint8 array (size, size, 3), y pointing up.
    """
    room = BOUNDARY + BALL_RADIUS  # the ball touches the outer wall when its centre is at the limit
    unit = size * SMOOTH / (2 * (room + MARGIN))
    image = Image.new("RGB", (size * SMOOTH, size * SMOOTH), GREY)
    draw = ImageDraw.Draw(image)

    def pixels(x: float, y: float) -> tuple[float, float]:
        return (room + MARGIN + x) * unit, (room + MARGIN - y) * unit

    def rectangle(x0: float, y0: float, x1: float, y1: float, fill: tuple[int, ...]) -> None:
        draw.rectangle((*pixels(x0, y1), *pixels(x1, y0)), fill=fill)

    def disc(xy: ArrayLike, radius: float, fill: tuple[int, ...]) -> None:
        x, y = pixels(*np.asarray(xy, dtype=float).tolist())
        r = radius * unit
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    rectangle(-room, -room, room, room, WHITE)
    for solid in solids:
        rectangle(*solid, fill=GREY)
    disc(goal, TARGET_RADIUS, ORANGE)
    disc(goal, TARGET_RADIUS - 0.1, PALE_ORANGE)
    disc(goal, 0.1, ORANGE)
    # The trail darkens towards the present, so that a still picture shows its direction.
    colours = [tuple(c) for c in np.linspace(PALE_BLUE, BLUE, len(trail)).astype(int).tolist()]
    for start, stop, colour in zip(trail[:-1], trail[1:], colours[1:], strict=True):
        ends = (*pixels(*start.tolist()), *pixels(*stop.tolist()))
        draw.line(ends, fill=colour, width=round(0.09 * unit))
    for point, colour in zip(trail, colours, strict=True):
        disc(point, 0.1, colour)
    disc(trail[0], 0.2, BLUE)  # an open circle marks the start
    disc(trail[0], 0.13, WHITE)
    disc(trail[-1], BALL_RADIUS, BLUE)
    disc(trail[-1], 0.07, WHITE)
    return np.asarray(image.reduce(SMOOTH), dtype=np.uint8)

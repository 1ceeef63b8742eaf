"""Box 2D's room: where a move ends, and that none goes through a wall."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_odac.envs.box2d import Box2DEnv
from rllib_odac.envs.box2d_room import (
    BOUNDARY,
    CLEARANCE,
    SOLIDS,
    blocked_regions,
    is_blocked,
    sample_free,
    step_positions,
)

WALLS = sorted(SOLIDS)


def moved(start: Any, move: Any, walls: str = "box") -> list[float]:
    """Where one move from `start` ends, rounded for comparison."""
    xy, step = np.array(start, np.float32), np.array(move, np.float32)
    return np.round(step_positions(xy, step, blocked_regions(walls)).astype(float), 5).tolist()


@pytest.mark.parametrize(
    ("start", "move", "end"),
    [
        ((3, 0), (0.4, 1), (3.4, 1)),  # free
        ((3, 0), (-1, 0), (2.51, 0)),  # head on, from the right
        ((-3, 0), (1, 0), (-2.51, 0)),
        ((0, 3), (0, -1), (0, 2.51)),
        ((0, -3), (0, 1), (0, -2.51)),
        ((3, 0), (-1, 0.7), (2.51, 0.7)),  # slides along the wall
        ((3, 3), (-1, -1), (2.51, 2.51)),  # into a corner: stopped by both edges
        ((3, 2.4), (-0.6, 0.6), (2.51, 3)),  # past a corner, but its bounding box is not
        ((3, 3), (-1, 0), (2, 3)),  # along the room's edge, above the box
        ((3.8, 3.9), (1, 1), (4, 4)),  # the room's boundary
        ((2.5, 0), (0, 1), (2.51, 1)),  # along an edge, on it
        ((2.5, 0), (1, 0), (3.5, 0)),  # away from an edge, on it
        ((2.51, 0), (0, 1), (2.51, 1)),  # along an edge, clear of it
        ((2.51, 0), (-0.01, 0), (2.51, 0)),  # exactly up to an edge
        ((3, 2.5), (-1, 0), (2.51, 2.51)),  # the bounding box touches the corner of the box
        ((3, 2.51), (-1, 0), (2, 2.51)),
        ((3, 0), (-50, 0), (2.51, 0)),  # too fast to pass through
        ((3, 2), (-50, 50), (2.51, 4)),
    ],
)
def test_collision_rule(start, move, end):
    assert moved(start, move) == pytest.approx(end, abs=1e-5)


@pytest.mark.parametrize(
    ("walls", "start", "move", "end"),
    [
        ("none", (1, 0), (-1, 0.5), (0, 0.5)),
        ("bar", (0, 2), (0.5, -1.5), (0.5, 1.01)),
        ("bar", (3.5, 0.2), (-1, 0), (3.01, 0.2)),
        ("easy_u", (0, -0.5), (0, 1), (0, -0.01)),  # inside the U, against its bar
        ("easy_u", (0.5, -0.5), (1, 1), (0.99, -0.01)),  # and in its corner
        ("easy_u", (2, -2), (0, 1), (2, -1.51)),
        ("big_u", (2, -3.5), (0, 1), (2, -3.01)),
        ("big_u", (-3.5, 1), (1, 0), (-3.01, 1)),
    ],
)
def test_collision_rule_of_the_other_walls(walls, start, move, end):
    assert moved(start, move, walls) == pytest.approx(end, abs=1e-5)


places = st.floats(-4, 4, width=32)
near_edges = st.sampled_from([s * x for s in (-1, 1) for x in (2.5, 2.501, 2.51, 2.4999, 4.0, 0.0)])
coordinates = st.one_of(places, near_edges)
steps = st.one_of(st.floats(-1, 1, width=32), st.floats(-20, 20, width=32))


@settings(max_examples=400, deadline=None)
@given(
    walls=st.sampled_from(WALLS),
    start=st.tuples(coordinates, coordinates),
    moves=st.lists(st.tuples(steps, steps), min_size=1, max_size=6),
)
def test_no_move_ends_in_or_crosses_a_wall(walls, start, moves):
    regions = blocked_regions(walls)
    xy = np.array(start, np.float32)
    if is_blocked(xy, regions):
        return
    for move in moves:
        end = step_positions(xy, np.array(move, np.float32), regions)
        assert not is_blocked(np.linspace(xy, end, 33), regions).any()
        assert (np.abs(end) <= BOUNDARY).all()
        xy = end


@pytest.mark.parametrize("walls", WALLS)
@pytest.mark.parametrize("scale", [0.25, 1.0, 7.0])
def test_no_random_walk_enters_or_crosses_a_wall(walls, scale):
    """Not only the end points: the straight ways between them are free too."""
    rng = np.random.default_rng(0)
    regions = blocked_regions(walls)
    xy = sample_free(rng, 1000, regions)
    for _ in range(60):
        end = step_positions(xy, rng.uniform(-scale, scale, xy.shape).astype(np.float32), regions)
        assert not is_blocked(np.linspace(xy, end, 21), regions).any()
        xy = end


def test_physics_leaves_its_input_alone():
    xy = np.array([[3, 0]], np.float32)
    step_positions(xy, np.array([[-1, 0]], np.float32), blocked_regions("box"))
    assert xy.tolist() == [[3, 0]]


def test_clearance_is_small_against_the_target():
    assert 0 < CLEARANCE < 0.1 * Box2DEnv.goals.success_distance

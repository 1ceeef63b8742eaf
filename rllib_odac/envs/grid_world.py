"""`GridWorldEnv`: cells behind walls, four directions to move in, and a cell to be at."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import ArrayLike, NDArray

from rllib_odac.envs.goals import Goals

# Four rooms with a door between each two neighbours (Sutton, Precup & Singh 1999, section 2).
FOUR_ROOMS = """
.....#.....
.....#.....
...........
.....#.....
.....#.....
#.####.....
.....###.##
.....#.....
.....#.....
...........
.....#.....
"""
MOVES = np.array([[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0]])  # stay, and along x or y

Observation = dict[str, NDArray[np.float32]]


class GridWorldEnv(gym.Env[Observation, np.int64]):
    """A cell (x, y) of a grid, 0 at its upper left, that another one is to become.

    Observations are the number of the cell among the free ones, as a one-hot row: that a wall is
    between two neighbours is then no matter of distances.

    Actions are 0 to stay, or 1 to 4 to move up, down, left and right; a wall or the grid's edge
    stops a move. Starts and goals are uniform over the free cells. Reaching a goal ends nothing.

    Args:
        walls: Rows of "." for a free cell and "#" for a wall.
        slip: Probability of a random action instead of the chosen one.
        render_mode: None, or "rgb_array" for pictures.

    Raises:
        ValueError: If the rows differ in length or no cell is free, or `slip` is none.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(
        self, walls: str = FOUR_ROOMS, slip: float = 0.0, render_mode: str | None = None
    ) -> None:
        rows = walls.split()
        if len({len(row) for row in rows}) != 1 or set("".join(rows)) not in ({"."}, {".", "#"}):
            raise ValueError(f"walls is {walls!r}, but must be rows of '.' and '#', each as long.")
        if not 0 <= slip <= 1:
            raise ValueError(f"slip is {slip}, but must be in [0, 1].")
        self.is_free = np.array([[cell == "." for cell in row] for row in rows]).T  # by (x, y)
        self.slip = slip
        self._free = np.argwhere(self.is_free)
        largest = np.array(self.is_free.shape, np.float32) - 1
        place = Box(np.zeros(2, np.float32), largest)
        number = Box(0, 1, (len(self._free),))
        self.observation_space = Dict(
            {"observation": number, "achieved_goal": place, "desired_goal": place}
        )
        self.render_mode = render_mode
        self.action_space = Discrete(len(MOVES))
        scale = float(max(largest)) / 2 or 1.0
        self.goals = Goals(success_distance=0.5, scale=scale, units="cells")
        self._cell = self._goal = np.zeros(2, int)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins at a free cell, for another one or the one in `options={"goal": ...}`."""
        super().reset(seed=seed)
        drawn = self.np_random.integers(len(self._free), size=2)
        self._cell, self._goal = self._free[drawn]
        if options and "goal" in options:
            self._goal = np.asarray(options["goal"])
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One move, if nothing stands in its way."""
        if self.slip and self.np_random.random() < self.slip:
            action = self.np_random.integers(len(MOVES))
        cell = self._cell + MOVES[action]
        if (cell >= 0).all() and (cell < self.is_free.shape).all() and self.is_free[tuple(cell)]:
            self._cell = cell
        info = self._info()
        return self._observation(), float(info["is_success"]) - 1, False, False, info

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> NDArray[np.float32]:
        """0 where goals (..., 2) are reached and -1 elsewhere; (...)."""
        reached = self.goals.reached(np.asarray(achieved_goal), np.asarray(desired_goal))
        return np.asarray(reached, np.float32) - 1

    def render(self) -> Any:
        """The grid from above: walls black, the cell blue, the goal green."""
        picture = np.where(self.is_free.T[..., None], 255, 0).repeat(3, axis=-1).astype(np.uint8)
        picture[self._goal[1], self._goal[0]] = 0, 160, 0
        picture[self._cell[1], self._cell[0]] = 0, 0, 255
        return picture.repeat(32, axis=0).repeat(32, axis=1)

    def _observation(self) -> Observation:
        cell, goal = self._cell.astype(np.float32), self._goal.astype(np.float32)
        number = (self._free == self._cell).all(axis=1).astype(np.float32)
        return {"observation": number, "achieved_goal": cell, "desired_goal": goal}

    def _info(self) -> dict[str, Any]:
        distance = float(np.linalg.norm(self._cell - self._goal))
        return {"is_success": distance < 0.5, "final_distance": distance}

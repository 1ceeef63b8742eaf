"""Box 2D: a ball in a square room has to reach a goal that may lie behind a wall.

The numbers (room, ball, target, walls, collision rule) are those of the `Point2D-Box-Wall-v1` task
and its relatives in the `multiworld` suite; the code is our own. Lengths are in that suite's units,
and positions are those of the ball's centre.

`Box2DEnv` is one room, `Box2DVectorEnv` steps thousands of rooms in a few NumPy calls. Both move
the ball with `step_positions` and keep its position as float32, so they agree to the last bit and
an observation is the whole state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from rllib_odac.envs.box2d_room import (
    BOUNDARY,
    SOLIDS,
    TARGET_RADIUS,
    FloatArray,
    blocked_regions,
    goal_distance,
    is_blocked,
    sample_free,
    step_positions,
)
from rllib_odac.envs.goals import Goals

HORIZON = 50  # steps, enough at action scale 1

Observation: TypeAlias = dict[str, FloatArray]


def _spaces() -> tuple[gym.spaces.Dict, gym.spaces.Box]:
    keys = ("observation", "achieved_goal", "desired_goal")
    observation = [(k, gym.spaces.Box(-BOUNDARY, BOUNDARY, (2,), np.float32)) for k in keys]
    return gym.spaces.Dict(observation), gym.spaces.Box(-1, 1, (2,), np.float32)


class _Box2DTask:
    """What one room and many share: the walls, the scale of actions, what success means."""

    goals: ClassVar[Goals] = Goals(TARGET_RADIUS, scale=BOUNDARY, units="units")

    def __init__(self, walls: str, action_scale: float, render_mode: str | None) -> None:
        if not 0 < action_scale < float("inf"):
            raise ValueError(f"action_scale must be a positive number, not {action_scale!r}.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"Box2D renders as 'rgb_array' or not at all, not {render_mode!r}.")
        self.walls = walls
        self.action_scale = float(action_scale)
        self.render_mode = render_mode
        self._regions = blocked_regions(walls)
        self._xy: FloatArray | None = None  # replaced at every step, never changed in place
        self._goal: FloatArray = np.zeros(2, dtype=np.float32)

    @property
    def regions(self) -> FloatArray:
        """Where the ball's centre cannot be, (W, 2, 2); see `blocked_regions`."""
        return self._regions

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> FloatArray:
        """0 within the success distance of the goal and -1 elsewhere, as `step` pays it.

        Args:
            achieved_goal: positions (..., 2).
            desired_goal: goals (..., 2).
            info: ignored; part of the usual signature of goal environments.

        Returns:
            float32 rewards (...).
        """
        success = goal_distance(achieved_goal, desired_goal) < TARGET_RADIUS
        return np.where(success, np.float32(0), np.float32(-1))

    def _position(self) -> FloatArray:
        if self._xy is None:
            raise gym.error.ResetNeeded("Box2D needs reset() before step() and render().")
        return self._xy

    def _move(self, action: ArrayLike) -> FloatArray:
        """Displacements for `action`, clipped to [-1, 1] and scaled."""
        xy = self._position()
        wished = np.asarray(action, dtype=np.float32)
        if wished.shape != xy.shape or not np.isfinite(wished).all():
            raise ValueError(f"Box2D needs finite actions of shape {xy.shape}, not {action!r}.")
        scale = np.float32(self.action_scale)
        move: FloatArray = np.minimum(np.maximum(wished, -1.0), 1.0) * scale
        return move

    def _places(
        self, rngs: Sequence[np.random.Generator], count: int, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Starts and goals: `count` from each generator, or those that `options` fixes."""
        # Both are always drawn, so that fixing one leaves the random stream of the other alone.
        drawn = [[sample_free(rng, count, self._regions) for _ in range(2)] for rng in rngs]
        places = dict(zip(("start", "goal"), np.concatenate(drawn, axis=1), strict=True))
        for key, given in (options or {}).items():
            if key not in places:
                raise ValueError(f"Box2D's reset takes the options start and goal, not {key!r}.")
            place = np.array(given, dtype=np.float32)
            if not (np.abs(place) <= BOUNDARY).all() or is_blocked(place, self._regions).any():
                raise ValueError(f"Box2D's {key} {given!r} lies in a wall or outside the room.")
            places[key] = np.broadcast_to(place, places[key].shape).copy()
        return places["start"], places["goal"]

    def _observation(self) -> Observation:
        # Copies: what a caller does to an observation must not move the ball.
        xy = self._position()
        return {
            "observation": xy.copy(),
            "achieved_goal": xy.copy(),
            "desired_goal": self._goal.copy(),
        }


class Box2DEnv(_Box2DTask, gym.Env[Observation, FloatArray]):
    """One ball in one room, `odac/Box2D-v0`.

    Observations are a Dict of float32 `observation`, `achieved_goal` (both the ball's xy) and
    `desired_goal`, each of shape (2,). Actions in [-1, 1]² times `action_scale` are displacements.
    The reward is 0 at the goal and -1 elsewhere. After every reset and step `info` holds
    `is_success` (bool) and `final_distance`, the distance to the goal at that moment. Episodes
    never terminate; one made through Gymnasium is truncated after 50 steps.

    Args:
        walls: "box", "bar", "easy_u", "big_u" or "none".
        action_scale: length of the longest step along an axis. At 0.25 give the ball a horizon of
            100 steps (`max_episode_steps=100`).
        render_mode: None or "rgb_array".

    Raises:
        ValueError: an argument, an action or a place given to `reset` is out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, walls: str = "box", action_scale: float = 1.0, render_mode: str | None = None
    ) -> None:
        super().__init__(walls, action_scale, render_mode)
        self.observation_space, self.action_space = _spaces()
        self._trail: list[FloatArray] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Sample start and goal uniformly in free space.

        `options` may fix either: "start" and "goal", each of shape (2,).
        """
        gym.Env.reset(self, seed=seed)
        start, goal = self._places([self.np_random], 1, options)
        self._xy, self._goal = start[0], goal[0]
        self._trail = [self._xy]
        return self._observation(), self._info()

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move by `action` (2,) times the action scale, as far as the walls allow."""
        self._xy = step_positions(self._position(), self._move(action), self._regions)
        if self.render_mode is not None:
            self._trail.append(self._xy)
        info = self._info()
        return self._observation(), 0.0 if info["is_success"] else -1.0, False, False, info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The room as a uint8 picture (400, 400, 3), or None without a render mode."""
        if self.render_mode is None:
            return None
        from rllib_odac.envs.box2d_picture import draw_room

        self._position()
        return draw_room(np.stack(self._trail), self._goal, SOLIDS[self.walls])

    def _info(self) -> dict[str, Any]:
        distance = float(goal_distance(self._position(), self._goal))
        return {"is_success": distance < TARGET_RADIUS, "final_distance": distance}


class Box2DVectorEnv(_Box2DTask, VectorEnv[Observation, FloatArray, NDArray[Any]]):
    """Many rooms in one: the native vector form of `odac/Box2D-v0`.

    Everything is as in `Box2DEnv` with a leading axis `num_envs`, except that episodes are
    truncated here, since a vector environment gets no time-limit wrapper. Autoreset is NEXT_STEP:
    the step after a truncated one ignores its action, pays 0 and returns the next episode's first
    observation.

    Args:
        num_envs: number of rooms.
        max_episode_steps: horizon; `gymnasium.make_vec` passes the registered one.
        walls, action_scale, render_mode: as for `Box2DEnv`.

    Raises:
        ValueError: as for `Box2DEnv`, or `num_envs` or `max_episode_steps` is below 1.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        **Box2DEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = HORIZON,
        walls: str = "box",
        action_scale: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1 or max_episode_steps < 1:
            raise ValueError("Box2D needs num_envs and max_episode_steps of at least 1.")
        super().__init__(walls, action_scale, render_mode)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.single_observation_space, self.single_action_space = _spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._history: deque[FloatArray] = deque(maxlen=max_episode_steps + 1)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every room anew, with starts and goals uniform in free space.

        Args:
            seed: one per room, or s for s, s + 1, ...; the first episode of each room is then that
                of a `Box2DEnv` of the same seed. Later ones come from one stream for all rooms.
            options: may fix "start" and "goal", each of shape (2,) or (num_envs, 2).
        """
        rngs, count = [self.np_random], self.num_envs
        if seed is not None:
            first = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
            seeds = [int(s) for s in first]
            if len(seeds) != self.num_envs:
                raise ValueError(f"{self.num_envs} rooms need as many seeds, not {len(seeds)}.")
            rngs, count = [seeding.np_random(s)[0] for s in seeds], 1
            self.np_random = np.random.default_rng(seeds)
        self._xy, self._goal = self._places(rngs, count, options)
        self._elapsed = np.zeros(self.num_envs, dtype=np.int64)
        self._history.clear()
        self._history.append(self._xy)
        return self._observation(), self._info()

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Move all balls by `actions` (num_envs, 2) times the action scale, or begin anew."""
        xy = step_positions(self._position(), self._move(actions), self._regions)
        begin = self._elapsed >= self.max_episode_steps
        if count := int(begin.sum()):
            self._goal = self._goal.copy()
            xy[begin], self._goal[begin] = self._places([self.np_random], count)
        self._xy = xy
        self._elapsed = np.where(begin, 0, self._elapsed + 1)
        if self.render_mode is not None:
            self._history.append(xy)
        info = self._info()
        rewards = np.where(info["is_success"] | begin, 0.0, -1.0)
        truncated = self._elapsed >= self.max_episode_steps
        return self._observation(), rewards, np.zeros_like(truncated), truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """One uint8 picture (400, 400, 3) per room, or None without a render mode."""
        if self.render_mode is None:
            return None
        from rllib_odac.envs.box2d_picture import draw_room

        self._position()
        history = np.stack(self._history)
        trails = (history[-1 - int(steps) :, i] for i, steps in enumerate(self._elapsed))
        solids = SOLIDS[self.walls]
        return tuple(draw_room(*room, solids) for room in zip(trails, self._goal, strict=True))

    def _info(self) -> dict[str, Any]:
        distance = goal_distance(self._position(), self._goal)
        # Gymnasium's convention: each entry comes with a mask of the rooms that report it.
        return {
            "is_success": distance < TARGET_RADIUS,
            "_is_success": np.ones(self.num_envs, dtype=np.bool_),
            "final_distance": distance,
            "_final_distance": np.ones(self.num_envs, dtype=np.bool_),
        }

"""`GoalEnv`: any simulator seen as a goal environment. Only the view is ours, never the physics."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rllib_odac.envs.goals import Goals

FloatArray: TypeAlias = NDArray[np.float32]
Observation: TypeAlias = dict[str, FloatArray]

# For pictures of MuJoCo's simulators.
MARK = (1.0, 0.6, 0.0, 0.7)  # red, green, blue and opacity of a goal
FREE_CAMERA = -1  # the number of the camera whose place the simulator's user describes


class GoalEnv(gym.Env[Observation, NDArray[Any]]):
    """A Gymnasium environment with goals around another one without, or with other conventions.

    Observations are a Dict of float32 `observation` (D,), `achieved_goal` and `desired_goal` (G,).
    The reward is 0 where the goal is reached and -1 elsewhere, equal to `compute_reward`. After
    every reset and step `info` holds `is_success` (bool) and `final_distance`, the distance to the
    goal at that moment, both judged by the `measured` coordinates of the goal alone: where a goal
    names hand and object, by the object's. Reaching the goal never ends an episode.

    A subclass says what it sees: `_observe` gives observation and achieved goal, `_draw_goal` the
    goal of a new episode, and `_show_goal` may mark it in the picture.

    Args:
        env: the simulator; it is stepped without the wrappers that `gymnasium.make` adds.
        desired_goal_space: the goals that may be asked for, (G,) float32.
        observation_dim: D.
        goals: which coordinates of a goal count, and when it is reached.
    """

    # Whether the simulator's own info comes along: mostly parts of a reward that nobody uses here,
    # which vector environments spend their time on.
    passes_info: ClassVar[bool] = False
    # Gymnasium asks the class before there is a simulator, whose own metadata an instance has.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"]}  # noqa: RUF012

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        desired_goal_space: gym.spaces.Box,
        observation_dim: int,
        goals: Goals,
    ) -> None:
        self.simulator: gym.Env[Any, Any] = env.unwrapped
        self.metadata = self.simulator.metadata
        self.render_mode = self.simulator.render_mode
        self.action_space = self.simulator.action_space
        (goal_dim,) = desired_goal_space.shape
        self.observation_space = gym.spaces.Dict(
            observation=gym.spaces.Box(-np.inf, np.inf, (observation_dim,), np.float32),
            achieved_goal=gym.spaces.Box(-np.inf, np.inf, (goal_dim,), np.float32),
            desired_goal=desired_goal_space,
        )
        self.goals = goals
        self._goal: FloatArray = np.zeros(goal_dim, dtype=np.float32)

    # What a subclass says -------------------------------------------------------------------------

    def _observe(self, raw: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Observation (D,) and achieved goal (G,) in what the simulator returned."""
        raise NotImplementedError

    def _draw_goal(self, raw: Any) -> NDArray[Any]:
        """The goal (G,) of the episode that began with `raw`, random through the simulator."""
        raise NotImplementedError

    def _show_goal(self, goal: FloatArray) -> None:
        """Marks the goal in the simulator's picture, where it has a mark for it."""

    # Gymnasium ------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; `options={"goal": ...}` asks for a goal instead of a random one.

        Raises:
            ValueError: the goal has another size than the goal space or lies outside of it.
        """
        options = dict(options or {})
        asked = options.pop("goal", None)
        goal = None if asked is None else self._checked_goal(asked)
        super().reset(seed=seed)
        raw = self._reset_simulator(seed, options)
        drawn = self._draw_goal(raw)  # always, so that asking leaves the random stream alone
        self._goal = np.array(drawn if goal is None else goal, dtype=np.float32)
        self._show_goal(self._goal)
        observation = self._observation(raw)
        return observation, self._judge(observation)

    def _reset_simulator(self, seed: int | None, options: dict[str, Any]) -> Any:
        raw, _ = self.simulator.reset(seed=seed, options=options or None)
        return raw

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step of the simulator, judged by our goal."""
        raw, _, terminated, truncated, info = self.simulator.step(action)
        observation = self._observation(raw)
        info = (info if self.passes_info else {}) | self._judge(observation)
        reward = 0.0 if info["is_success"] else -1.0
        return observation, reward, bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """The simulator's picture."""
        return self.simulator.render()

    def close(self) -> None:
        """Close the simulator."""
        self.simulator.close()  # type: ignore[no-untyped-call]

    # Goals ----------------------------------------------------------------------------------------

    def goal_distance(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike
    ) -> NDArray[np.float64]:
        """Distances (...) of the measured coordinates of goals (..., G), in `goals.units`."""
        return np.asarray(self.goals.distance(np.asarray(achieved_goal), np.asarray(desired_goal)))

    def is_success(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.bool_]:
        """Whether goals (..., G) are reached; shape (...)."""
        return np.asarray(self.goals.reached(np.asarray(achieved_goal), np.asarray(desired_goal)))

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> FloatArray:
        """0 where goals (..., G) are reached and -1 elsewhere, as `step` pays it; float32 (...)."""
        success = self.is_success(achieved_goal, desired_goal)
        return np.where(success, np.float32(0), np.float32(-1))

    def _checked_goal(self, goal: ArrayLike) -> FloatArray:
        space = self.observation_space["desired_goal"]  # type: ignore[index]
        checked = np.asarray(goal, dtype=np.float32)
        if checked.shape != space.shape:
            raise ValueError(f"The goal has shape {checked.shape}, but must have {space.shape}.")
        if not space.contains(checked):
            raise ValueError(
                f"The goal {checked.tolist()} is outside the goal space, which goes from "
                f"{space.low.tolist()} to {space.high.tolist()}."
            )
        return checked

    def _observation(self, raw: Any) -> Observation:
        observation, achieved = self._observe(raw)
        return {
            "observation": np.array(observation, dtype=np.float32),
            "achieved_goal": np.array(achieved, dtype=np.float32),
            "desired_goal": self._goal.copy(),
        }

    def _judge(self, observation: Observation) -> dict[str, Any]:
        achieved, goal = observation["achieved_goal"], observation["desired_goal"]
        return {
            "is_success": bool(self.is_success(achieved, goal)),
            "final_distance": float(self.goal_distance(achieved, goal)),
        }

"""`goal_env`: any Gymnasium environment as a goal environment, in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from numpy.typing import ArrayLike, NDArray

from rllib_odac.envs.base import FloatArray, GoalEnv
from rllib_odac.envs.families import is_maze
from rllib_odac.envs.flatten import GOAL_KEYS
from rllib_odac.envs.goals import Goals, goals_of
from rllib_odac.envs.registry import (
    EnvLike,
    check_goal_env,
    env_name,
    make_any_env,
)

Callback: TypeAlias = Callable[[Any, Any], ArrayLike]
Choice: TypeAlias = slice | Sequence[int] | NDArray[np.integer[Any]] | Callback

# Attributes by which reaching the goal would end an episode or move the goal: in gymnasium-robotics
# the first two are the mazes', the last is the kitchen's, where ending is the default.
KEEP_GOING = {
    "continuing_task": True,
    "reset_target": False,
    "terminate_on_tasks_completed": False,
}
OWN_WRAPPERS = (TimeLimit, OrderEnforcing, PassiveEnvChecker)  # what `gymnasium.make` adds


def goal_env(
    env: EnvLike | gym.Env[Any, Any],
    *,
    observation: Choice | None = None,
    achieved_goal: Choice | None = None,
    desired_goal: Choice | Box | None = None,
    success_distance: float | None = None,
    goal_scale: float | None = None,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    units: str | None = None,
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """See any environment as a goal environment.

        def make_reacher(**kwargs):
            return goal_env(
                "Reacher-v5",
                observation=[0, 1, 2, 3, 6, 7],  # joints only: the rest tells where the target is
                achieved_goal=lambda observation, env: env.get_body_com("fingertip")[:2],
                desired_goal=slice(4, 6),
                success_distance=0.02,
                **kwargs,
            )

    An environment that has goals already (Fetch, the mazes, the hands of gymnasium-robotics) needs
    no argument. Observations are float32, the reward is 0 where the goal is reached and -1
    elsewhere, and `info` holds `is_success` and `final_distance`, as `GoalEnv` says.

    Each of `observation`, `achieved_goal` and `desired_goal` is a slice or a list of indices, into
    the observation or, where that is a Dict, into its entry of the same name; or a callable
    `f(observation, env)` that returns a finite vector, always of the same size, from the
    environment's own observation and the environment itself, so that `env.data` and the like are
    at hand. `env` is reset once here, which tells the sizes.

    Reaching the goal ends no episode and moves no goal: the mazes' `continuing_task` and
    `reset_target` and the kitchen's `terminate_on_tasks_completed` are set so, whatever they were
    made with. Where `env` ends an episode by itself otherwise, as in a fall, it ends here too.

    Args:
        env: an id as for `make_env`, "module:Id" included, a callable that returns an environment,
            or an environment, which then is stepped in place. Wrappers stay, except the outermost
            that `gymnasium.make` adds; a time limit inside of others stays in force.
        observation: what the policy sees, (D,); None: all of it. Leave the goal out: what stays in
            is not changed when a learner relabels it.
        achieved_goal: where the goal's coordinates are now, (G,); None: the environment's own.
        desired_goal: the goal of the episode, (G,), taken after each reset, or a bounded Box that
            goals are drawn from uniformly; None: the environment's own.
        success_distance: Euclidean distance below which the goal counts as reached; None: the
            environment's own. That of HandManipulate is for the position: reached there means near
            in rotation too, as the environment itself judges it.
        goal_scale: unit in which a learner may measure goals; None: the environment's own, or the
            learner finds one.
        max_episode_steps: horizon; None: the environment's own, if it has one. Only this one
            can make episodes longer: another, given where the result is registered, cannot.
        render_mode: passed on if it is not None; "rgb_array" also calls `set_headless_gl`.
        units: what distances are in; None: "m", with "and quaternion" for HandManipulate.
        **kwargs: passed to what makes the environment.

    Returns:
        An `AdaptedEnv`, in a `TimeLimit` if it has a horizon. It can be pickled if the arguments
        can: functions of a module with `pickle`, lambdas too with cloudpickle, which Ray uses. It
        is made anew then.

    Raises:
        ValueError: the environment cannot be made, `actions_of` refuses its actions, it has no
            goals and an argument that says what they are is missing, or an argument does not fit.
            Later, in `reset` and `step`: a vector has another size or is not finite.
        RuntimeError: MuJoCo finds no OpenGL library to render with.
    """
    recipe = {
        "env": env,
        "observation": observation,
        "achieved_goal": achieved_goal,
        "desired_goal": desired_goal,
        "success_distance": success_distance,
        "goal_scale": goal_scale,
        "max_episode_steps": max_episode_steps,
        "render_mode": render_mode,
        "units": units,
        **kwargs,
    }
    _check_positive("success_distance", success_distance)
    _check_positive("goal_scale", goal_scale)
    _check_positive("max_episode_steps", max_episode_steps, int, "whole number")
    made, name = _made(env, render_mode, kwargs)
    try:
        simulator, own_horizon = _bare(made)
        adapted = AdaptedEnv(
            simulator,
            {key: recipe[key] for key in GOAL_KEYS},
            success_distance=success_distance,
            goal_scale=goal_scale,
            units=units,
            name=name,
            recipe=recipe,
        )
        check_goal_env(adapted, name)
    except Exception:
        if made is not env:
            made.close()  # type: ignore[no-untyped-call]
        raise
    horizon = max_episode_steps or own_horizon
    if made is not env:  # an environment given as such cannot be made again
        adapted.spec = EnvSpec(
            f"goal_env/{type(simulator.unwrapped).__name__}",
            entry_point=f"{__name__}:goal_env",
            max_episode_steps=horizon,
            kwargs=recipe,
        )
    return adapted if horizon is None else TimeLimit(adapted, horizon)


class AdaptedEnv(GoalEnv):
    """What `goal_env` returns, inside the time limit.

    Args:
        simulator: the environment to step, as it is.
        choices: what `goal_env` was told for each of the three keys.
        success_distance, goal_scale, units: as for `goal_env`.
        name: what to call the environment in messages.
        recipe: the arguments of `goal_env`, which makes the environment anew where it is unpickled.

    Raises:
        ValueError: a choice is missing or does not fit.
    """

    passes_info = True  # it is the user's

    def __init__(
        self,
        simulator: gym.Env[Any, Any],
        choices: dict[str, Any],
        *,
        success_distance: float | None,
        goal_scale: float | None,
        units: str | None,
        name: str,
        recipe: dict[str, Any],
    ) -> None:
        self._name = name
        self._recipe = recipe
        self.simulator = simulator
        core: Any = simulator.unwrapped
        _tidy(core)
        space = simulator.observation_space
        own = [key for key in GOAL_KEYS if isinstance(space, Dict) and _part(space, key)]
        keeps_goals = choices["achieved_goal"] is None
        theirs = goals_of(core) if "achieved_goal" in own else Goals()
        if not keeps_goals:
            theirs = Goals(theirs.success_distance)
        goals = theirs
        if success_distance is not None:
            distance = float(success_distance)
            goals = replace(goals, success_distance=distance, judged=None, rotation=None, units="m")
        missing = [key for key in GOAL_KEYS[1:] if choices[key] is None and key not in own]
        if missing or goals.success_distance is None:
            missing += ["success_distance"] if goals.success_distance is None else []
            raise ValueError(
                f"goal_env needs {' and '.join(missing)} for {name}, which has none of its own."
            )
        self._goals = _goal_space(choices["desired_goal"])
        self._pickers = {
            key: _picker(key, choice, space, name)
            for key, choice in choices.items()
            if not (key == "desired_goal" and self._goals)
        }
        self._sizes: dict[str, int] = {}  # not known yet
        raw, _ = simulator.reset()
        sizes = {key: self._pick(key, raw).size for key in self._pickers}
        if self._goals is not None:
            sizes["desired_goal"] = self._goals.shape[0]
        goal_dim = sizes["achieved_goal"]
        if sizes["desired_goal"] != goal_dim:
            raise ValueError(
                f"achieved_goal of {name} has size {goal_dim} and desired_goal has size "
                f"{sizes['desired_goal']}, but they must have the same."
            )
        self._sizes = sizes
        self._shows_goal = keeps_goals and np.shape(getattr(core, "goal", ())) == (goal_dim,)
        super().__init__(
            simulator,
            desired_goal_space=self._goals or Box(-np.inf, np.inf, (goal_dim,), np.float32),
            observation_dim=sizes["observation"],
            goals=replace(
                goals,
                scale=goals.scale if goal_scale is None else float(goal_scale),
                hand_object=goals.hand_object if choices["observation"] is None else None,
                units=units or goals.units,
            ),
        )
        # The base class takes all wrappers off; those left here are the user's.
        self.simulator = simulator
        self.metadata = simulator.metadata
        self.render_mode = simulator.render_mode
        self.action_space = simulator.action_space

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._recipe,)

    def _observe(self, raw: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._pick("observation", raw), self._pick("achieved_goal", raw)

    def _draw_goal(self, raw: Any) -> NDArray[Any]:
        if self._goals is None:
            return self._pick("desired_goal", raw)
        # The simulator got the same seed: drawn from the generator itself, goals would go along
        # with the initial states.
        return self.np_random.spawn(1)[0].uniform(self._goals.low, self._goals.high)

    def _show_goal(self, goal: FloatArray) -> None:
        if self._shows_goal:  # the simulators of gymnasium-robotics draw what they keep there
            core: Any = self.simulator.unwrapped
            core.goal = goal.astype(np.float64)
            if hasattr(core, "update_target_site_pos"):
                core.update_target_site_pos()

    def _pick(self, key: str, raw: Any) -> NDArray[np.float64]:
        picked = self._pickers[key](raw, self.simulator)
        try:
            vector = np.asarray(picked, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"{key} of {self._name} is a {type(picked).__name__}, but must be a vector."
            ) from None
        size = self._sizes.get(key, vector.size)
        if vector.shape != (size,) or not size:
            wanted = f"({size},)" if key in self._sizes else "(n,), that of a vector"
            raise ValueError(
                f"{key} of {self._name} has shape {vector.shape}, but must have {wanted}."
            )
        if not np.isfinite(vector).all():
            raise ValueError(f"{key} of {self._name} is not finite: {vector.tolist()}.")
        return vector


def _unpickled(recipe: dict[str, Any]) -> gym.Env[Any, Any]:
    return goal_env(**recipe).unwrapped


def _made(
    env: EnvLike | gym.Env[Any, Any], render_mode: str | None, kwargs: dict[str, Any]
) -> tuple[gym.Env[Any, Any], str]:
    """The environment, and what to call it in messages."""
    if isinstance(env, gym.Env):
        if render_mode is not None:
            kwargs = kwargs | {"render_mode": render_mode}
        if kwargs:
            raise ValueError(f"{env} is made already and takes no argument {next(iter(kwargs))!r}.")
        return env, str(env)
    return make_any_env(env, render_mode, **kwargs), env_name(env)


def _bare(env: gym.Env[Any, Any]) -> tuple[gym.Env[Any, Any], int | None]:
    """The environment without the outermost of Gymnasium's own wrappers, and its horizon."""
    horizons: list[int] = []
    while isinstance(env, gym.Wrapper) and type(env) in OWN_WRAPPERS:
        if isinstance(env, TimeLimit):
            horizons.append(env._max_episode_steps)
        env = env.env
    if env.spec is not None and env.spec.max_episode_steps is not None:
        horizons.append(env.spec.max_episode_steps)
    return env, min(horizons, default=None)


def _tidy(core: Any) -> None:
    """Stops `core` from ending at its goal and removes the file that a maze leaves behind."""
    for name, value in KEEP_GOING.items():
        if isinstance(getattr(core, name, None), bool):  # a robot may have a method of that name
            setattr(core, name, value)
    if is_maze(core):  # its walls were read from there, once
        Path(core.tmp_xml_file_path).unlink(missing_ok=True)


def _goal_space(choice: Any) -> Box | None:
    """The Box (G,) in float32 that goals are drawn from, if `choice` is one."""
    if not isinstance(choice, Box):
        return None
    if len(choice.shape) != 1 or not choice.shape[0] or not choice.is_bounded("both"):
        raise ValueError(f"desired_goal is {choice}, but must be a bounded Box of shape (G,).")
    return Box(choice.low.astype(np.float32), choice.high.astype(np.float32), dtype=np.float32)


def _part(space: gym.Space[Any], key: str) -> Box | None:
    """What indices for `key` point into: an entry of a Dict or else all; None if no vector."""
    part = space.spaces.get(key) if isinstance(space, Dict) else space
    return part if isinstance(part, Box) and len(part.shape) == 1 else None


def _picker(key: str, choice: Any, space: gym.Space[Any], name: str) -> Callback:
    """The function f(observation, env) that `choice` stands for."""
    if callable(choice):
        return choice  # type: ignore[no-any-return]
    part = _part(space, key)
    if part is None:
        raise ValueError(
            f"{key} of {name} must be a callable f(observation, env), as there is no vector of "
            f"that name to take it from by indices: its observations are a {type(space).__name__}."
        )
    indices = _indices(key, slice(None) if choice is None else choice, part.shape[0])
    if isinstance(space, Dict):
        return lambda raw, env: raw[key][indices]
    return lambda raw, env: raw[indices]


def _indices(key: str, choice: Any, size: int) -> NDArray[np.intp]:
    """The indices that `choice` names in a vector of `size`."""
    is_slice = isinstance(choice, slice)
    if is_slice:
        named = [end for end in (choice.start, choice.stop) if end is not None]
    else:
        named = list(choice) if isinstance(choice, Sequence | np.ndarray) else [None]
    if not all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in named):
        box = ", a bounded Box" if key == "desired_goal" else ""
        raise ValueError(
            f"{key} is {choice!r}, but must be a slice, a list of indices{box} or a callable "
            "f(observation, env)."
        )
    if not all(-size <= i < size + is_slice for i in named):
        raise ValueError(f"{key} is {choice!r}, which reaches out of a vector of size {size}.")
    indices: NDArray[np.intp] = np.arange(size)[
        choice if is_slice else np.array(named, dtype=np.intp)
    ]
    if not indices.size:
        raise ValueError(f"{key} is {choice!r}, which takes nothing from a vector of size {size}.")
    return indices


def _check_positive(name: str, value: Any, kind: Any = Real, kind_name: str = "number") -> None:
    if value is not None and not (isinstance(value, kind) and 0 < value < math.inf):
        raise ValueError(f"{name} is {value!r}, but must be a positive {kind_name}.")

"""`Goals`: which coordinates of a goal count, and when it is reached.

Environments, objectives, exploration goals and pictures ask the same object. It takes NumPy arrays
and PyTorch tensors alike, and imports PyTorch for neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_odac.envs.families import is_maze, own_success_distance

POSITION, QUATERNION = slice(0, 3), slice(3, 7)  # in the goals of HandManipulate


@dataclass(frozen=True)
class Goals:
    """What reaching a goal (G,) means in an environment; it can be pickled.

    Attributes:
        success_distance: Euclidean distance below which a goal is reached, in `units`; None if the
            environment names none.
        measured: Coordinates that distances are over. Where a goal names hand and object, those of
            the object.
        judged: Coordinates that `success_distance` is held against; None for `measured`.
        includes_boundary: Whether a goal at just the success distance is reached too.
        rotation: The four coordinates of a unit quaternion that has to be reached as well, or None.
        success_angle: Angle in rad below which the rotation is reached.
        ignores_z_rotation: Whether a rotation about z (of Euler angles) makes no difference.
        scale: Unit in which a learner may measure goals, about the half-width of their
            distribution, in `units`; None to find one.
        hand_object: Where an observation holds the positions of a hand and of what it has to move.
        units: What distances are in.
    """

    success_distance: float | None = None
    measured: slice = field(default_factory=lambda: slice(None), hash=False)
    judged: slice | None = field(default=None, hash=False)
    includes_boundary: bool = False
    rotation: slice | None = field(default=None, hash=False)
    success_angle: float = math.inf
    ignores_z_rotation: bool = False
    scale: float | None = None
    hand_object: tuple[slice, slice] | None = field(default=None, hash=False)
    units: str = "m"

    def distance(self, achieved: Any, goal: Any) -> Any:
        """Euclidean distances (...) of the measured coordinates of goals (..., G), in `units`.

        NumPy arrays are measured in float64, tensors in their own type.
        """
        return _norm(achieved, goal, self.measured)

    def reached(self, achieved: Any, goal: Any) -> Any:
        """Whether goals (..., G) are reached; bool (...), a tensor if `achieved` is one.

        Raises:
            ValueError: If no success distance is known.
        """
        if self.success_distance is None:
            raise ValueError("No success distance is known for these goals.")
        distance = _norm(achieved, goal, self.judged or self.measured)
        near = (
            distance <= self.success_distance
            if self.includes_boundary
            else distance < self.success_distance
        )
        if self.rotation is None:
            return near
        return near & self._is_turned(achieved, goal)

    @property
    def judged_coordinates(self) -> slice:
        """Coordinates that a ball of radius `success_distance` around a goal lies in."""
        return self.judged or self.measured

    def at(self, success_distance: float | str) -> Goals:
        """The same goals, reached at another distance; "auto" leaves it as it is."""
        if isinstance(success_distance, str):
            return self
        return replace(self, success_distance=float(success_distance))

    def _is_turned(self, achieved: Any, goal: Any) -> Any:
        """Whether the rotation is within the success angle; q and −q are the same rotation."""
        assert self.rotation is not None
        ours = _to_numpy(achieved)[..., self.rotation]
        theirs = _to_numpy(goal)[..., self.rotation]
        ours, theirs = np.broadcast_arrays(ours, theirs)
        if self.ignores_z_rotation:
            from gymnasium_robotics.utils import rotations

            angles = rotations.quat2euler(ours)
            angles[..., 2] = rotations.quat2euler(theirs)[..., 2]
            ours = rotations.euler2quat(angles)
        cosine = np.abs((ours * theirs).sum(-1)).clip(0, 1)
        is_near = 2 * np.arccos(cosine) < self.success_angle
        return is_near if isinstance(achieved, np.ndarray) else achieved.new_tensor(is_near).bool()


def goals_of(env: Any) -> Goals:
    """What an environment says of its goals: our own, those of gymnasium-robotics, or any other's.

    Args:
        env: With or without wrappers. Of one that knows no `Goals` the attributes
            `success_distance` or `distance_threshold`, also of its `task`, `goal_scale`,
            `measured` and `hand_object` are used as far as it has them.
    """
    core = env.unwrapped
    goals = getattr(core, "goals", None)
    if isinstance(goals, Goals):
        return goals
    scale = getattr(core, "goal_scale", None)
    goals = Goals(
        success_distance=own_success_distance(core),
        measured=getattr(core, "measured", slice(None)),
        includes_boundary=is_maze(core),
        scale=None if scale is None else float(scale),
        hand_object=getattr(core, "hand_object", None),
        units=getattr(core, "units", "m"),
    )
    if not hasattr(core, "rotation_threshold"):
        return goals
    turns = core.target_rotation != "ignore"
    return replace(
        goals,
        success_distance=math.inf if core.target_position == "ignore" else goals.success_distance,
        judged=POSITION,
        rotation=QUATERNION if turns else None,
        success_angle=float(core.rotation_threshold) if turns else math.inf,
        ignores_z_rotation=bool(core.ignore_z_target_rotation),
        units="m and quaternion",
    )


def reported_success(
    infos: Mapping[str, Any], num_envs: int, required: bool = False
) -> NDArray[np.bool_]:
    """(N,) what the info of a vector environment says; a bool, a number, or nothing.

    Raises:
        ValueError: If it says nothing and is `required`.
    """
    reported = infos.get("is_success", infos.get("success"))
    if reported is None and required:
        raise ValueError(
            "The environment's info holds neither 'is_success' nor 'success', one of which must "
            "say whether the goal is reached."
        )
    return np.zeros(num_envs, bool) if reported is None else np.asarray(reported).astype(bool)


def reported_distance(
    infos: Mapping[str, Any], observation: Mapping[str, NDArray[Any]], goals: Goals
) -> NDArray[Any]:
    """(...) distance to the goal: what the info says, or else that of the measured coordinates."""
    if "final_distance" in infos:
        return np.asarray(infos["final_distance"])
    way = observation["achieved_goal"] - observation["desired_goal"]
    return np.asarray(np.linalg.norm(way[..., goals.measured], axis=-1))


def own_reward(env: Any, achieved: NDArray[Any], goal: NDArray[Any]) -> NDArray[Any]:
    """(B,) what an environment's `compute_reward` pays for goals (B, G)."""
    pay = env.get_wrapper_attr("compute_reward")
    if getattr(env.unwrapped, "ignore_z_target_rotation", False):
        # Of a batch, gymnasium-robotics 1.4 would take the angles of its third pose for those
        # about z of each one.
        pairs = zip(achieved, goal, strict=True)
        return np.array([pay(one, other, {}) for one, other in pairs])
    return np.asarray(pay(achieved, goal, [{}] * len(goal)))


def _norm(achieved: Any, goal: Any, coordinates: slice) -> Any:
    if hasattr(achieved, "norm"):  # a tensor
        return (achieved - goal)[..., coordinates].norm(dim=-1)
    ours: NDArray[np.float64] = np.asarray(achieved, dtype=np.float64)[..., coordinates]
    offset = ours - np.asarray(goal, dtype=np.float64)[..., coordinates]
    return np.asarray(np.sqrt(np.square(offset).sum(-1)))


def _to_numpy(values: Any) -> NDArray[np.float64]:
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)

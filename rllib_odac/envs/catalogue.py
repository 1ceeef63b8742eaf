"""What each goal environment asks for, as facts to look up: making one to ask takes seconds.

A unit test makes the environments and compares.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import gymnasium as gym

from rllib_odac.envs.registry import INSTALL, known_env_ids


@dataclass(frozen=True)
class EnvFacts:
    """Facts of one environment, or of a family of them, with its default arguments.

    Args:
        goal: what has to be where, such as "block xyz".
        goal_dim: numbers in a goal.
        units: what distances are in.
        success_distance: distance within which a goal counts as reached, in `units`; None if
            places do not count.
        success_angle: angle within which it does, in radians; None if angles do not count.
        package: importable package that it needs and that may be missing.
    """

    goal: str
    goal_dim: int
    units: str
    success_distance: float | None
    success_angle: float | None = None
    package: str | None = None

    @property
    def success(self) -> str:
        """Within what a goal counts as reached, such as "0.05 m"."""
        place = None if self.success_distance is None else f"{self.success_distance:g} {self.units}"
        angle = None if self.success_angle is None else f"{self.success_angle:g} rad"
        return ", ".join(part for part in (place, angle) if part)

    @property
    def is_installed(self) -> bool:
        """Whether `package` is there; imports nothing."""
        return self.package is None or importlib.util.find_spec(self.package) is not None

    @property
    def install(self) -> str | None:
        """The command that installs what is missing, None if nothing is."""
        return None if self.is_installed else f"pip install {INSTALL[self.package or '']}"


_ROBOTICS: dict[str, Any] = {"units": "m", "package": "gymnasium_robotics"}
_SAWYER: dict[str, Any] = {"units": "m", "package": "metaworld"}

# By id or by a pattern of ids. The first that fits counts, so exceptions stand before their family.
CATALOGUE: dict[str, EnvFacts] = {
    "odac/Box2D-v0": EnvFacts("ball xy", 2, "units", 0.6),
    "odac/GridWorld-v0": EnvFacts("cell xy", 2, "cells", 0.5),
    "odac/BitFlip-v0": EnvFacts("bits", 16, "bits", 0.5),
    "odac/Ant-v0": EnvFacts("torso xy", 2, "m", 0.5, package="mujoco"),
    "odac/SawyerPush-v0": EnvFacts("hand and puck xy", 4, success_distance=0.06, **_SAWYER),
    "odac/MetaWorldPush-v0": EnvFacts("hand and puck xyz", 6, success_distance=0.05, **_SAWYER),
    "odac/MetaWorld-v0": EnvFacts("object xyz", 3, success_distance=0.05, **_SAWYER),
    "odac/FetchPush-v0": EnvFacts("block xyz", 3, success_distance=0.05, **_ROBOTICS),
    "odac/SawyerFaucet-v0": EnvFacts("hand and handle xyz", 6, success_distance=0.07, **_SAWYER),
    "odac/SawyerWindow-v0": EnvFacts("hand and handle xyz", 6, success_distance=0.05, **_SAWYER),
    "FetchReach*": EnvFacts("gripper xyz", 3, success_distance=0.05, **_ROBOTICS),
    "FetchSlide*": EnvFacts("puck xyz", 3, success_distance=0.05, **_ROBOTICS),
    "Fetch*": EnvFacts("block xyz", 3, success_distance=0.05, **_ROBOTICS),
    "PointMaze*": EnvFacts("ball xy", 2, success_distance=0.45, **_ROBOTICS),
    "AntMaze*": EnvFacts("torso xy", 2, success_distance=0.45, **_ROBOTICS),
    "HandReach*": EnvFacts("fingertips xyz", 15, success_distance=0.01, **_ROBOTICS),
    "HandManipulate*Rotate*": EnvFacts(
        "object pose", 7, success_distance=None, success_angle=0.1, **_ROBOTICS
    ),
    "HandManipulatePen*": EnvFacts(
        "object pose", 7, success_distance=0.05, success_angle=0.1, **_ROBOTICS
    ),
    "HandManipulate*": EnvFacts(
        "object pose", 7, success_distance=0.01, success_angle=0.1, **_ROBOTICS
    ),
}


def env_facts(env_id: str) -> EnvFacts:
    """The facts of one environment of `known_env_ids`.

    Raises:
        KeyError: the catalogue has no row for it.
    """
    for pattern, facts in CATALOGUE.items():
        if fnmatchcase(env_id, pattern):
            return facts
    raise KeyError(f"The catalogue of environments has no row for {env_id!r}.")


def describe_envs() -> list[dict[str, Any]]:
    """One row for each environment of `known_env_ids`, without making any.

    Returns:
        Rows with the environment's `id`, the fields of `EnvFacts`, `success` in words, the
        `horizon` in steps, whether it is `installed` and, if not, the command to `install` it.
    """
    rows = []
    for env_id in known_env_ids():
        facts = env_facts(env_id)
        rows.append(
            {
                "id": env_id,
                **asdict(facts),
                "success": facts.success,
                "horizon": gym.spec(env_id).max_episode_steps,
                "installed": facts.is_installed,
                "install": facts.install,
            }
        )
    return rows

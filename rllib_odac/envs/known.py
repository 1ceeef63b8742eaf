"""`KnownEnvironment`: what one look at an environment tells a configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rllib_odac.envs.actions import Actions, actions_of
from rllib_odac.envs.families import own_time_limit
from rllib_odac.envs.flatten import is_flattened
from rllib_odac.envs.goals import Goals, goals_of


class KnownEnvironment(NamedTuple):
    """What one look at an environment tells.

    Attributes:
        goals: When its goals are reached.
        horizon: Steps after which an episode is cut, or ends by a clock of its own, or None.
        has_spec: Whether Gymnasium knows how it was made.
        pays: Whether it computes rewards for any pair of goals.
        widths: Numbers in a row of its observations and goals.
        actions: How rows of numbers stand for its actions.
    """

    goals: Goals
    horizon: int | None
    has_spec: bool
    pays: bool
    widths: dict[str, int]
    actions: Actions


def look_at(env: Any) -> KnownEnvironment:
    """What is known of a goal environment, which is closed then."""
    found = KnownEnvironment(
        goals_of(env),
        horizon=own_time_limit(env),
        has_spec=env.spec is not None,
        pays=hasattr(env.unwrapped, "compute_reward") and not is_flattened(env),
        widths=_widths(env),
        actions=actions_of(env.action_space),
    )
    env.close()
    return found


def _widths(env: Any) -> dict[str, int]:
    spaces = {name: env.observation_space[name] for name in ("observation", "desired_goal")}
    return {name: int(np.prod(space.shape)) for name, space in spaces.items()}

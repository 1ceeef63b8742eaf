"""`KnownEnvironment`: what one look at an environment tells a configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rllib_odac.envs.actions import Actions, actions_of
from rllib_odac.envs.families import ends_by_itself, own_time_limit
from rllib_odac.envs.flatten import is_flattened
from rllib_odac.envs.goals import Goals, goals_of


class KnownEnvironment(NamedTuple):
    """What one look at an environment tells.

    Attributes:
        goals: When its goals are reached.
        horizon: Steps after which an episode is cut, or ends by a clock of its own, or None.
        ends: Whether its episodes end: at the horizon, or by itself when it was tried.
        pays: Whether it computes rewards for any pair of goals.
        widths: Numbers in a row of its observations and goals.
        actions: How rows of numbers stand for its actions.
    """

    goals: Goals
    horizon: int | None
    ends: bool
    pays: bool
    widths: dict[str, int]
    actions: Actions


def look_at(env: Any, tries_an_episode: bool = False) -> KnownEnvironment:
    """What is known of a goal environment, which is closed then.

    Args:
        env: The environment.
        tries_an_episode: Whether to find out by an episode if it ends, where it has no limit.
    """
    horizon = own_time_limit(env)
    found = KnownEnvironment(
        goals_of(env),
        horizon=horizon,
        ends=horizon is not None or (tries_an_episode and ends_by_itself(env)),
        pays=hasattr(env.unwrapped, "compute_reward") and not is_flattened(env),
        widths=widths_of(env.observation_space),
        actions=actions_of(env.action_space),
    )
    env.close()
    return found


def widths_of(space: Any) -> dict[str, int]:
    """Numbers in a row of observations and goals, of the Dict space of a goal environment."""
    return {name: int(np.prod(space[name].shape)) for name in ("observation", "desired_goal")}

"""Goal environments. Importing this package registers our own with Gymnasium."""

from __future__ import annotations

from rllib_odac.envs.adapter import goal_env
from rllib_odac.envs.registry import known_env_ids, make_env, make_vector_env, register_envs

__all__ = ["goal_env", "known_env_ids", "make_env", "make_vector_env", "register_envs"]

# Gymnasium imports the module of an id such as "rllib_odac.envs:odac/Box2D-v0" for this effect.
register_envs()

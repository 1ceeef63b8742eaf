"""Outcome-Driven Actor-Critic on Ray RLlib: agents that reach goals without a hand-made reward.

Importing this package registers its environments with Gymnasium and imports neither Ray nor
PyTorch; the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# As in pyproject.toml: what is installed may name an older one, where the source goes on.
__version__ = "0.2.0"

if TYPE_CHECKING:
    from rllib_odac.agent.objectives import Objective, ODACObjective
    from rllib_odac.algorithm import ODAC
    from rllib_odac.config import ODACConfig
    from rllib_odac.deploy import Policy, export_policy, load_policy
    from rllib_odac.envs import goal_env, make_env, make_vector_env, register_envs
    from rllib_odac.experiments.run import Run
    from rllib_odac.experiments.spec import RunSpec
    from rllib_odac.maths.tabular import TabularODAC
    from rllib_odac.replay.buffer import GoalReplay
    from rllib_odac.replay.episodes import GoalEpisode

_LAZY = {
    "ODAC": "rllib_odac.algorithm",
    "ODACConfig": "rllib_odac.config",
    "ODACObjective": "rllib_odac.agent.objectives",
    "Objective": "rllib_odac.agent.objectives",
    "GoalEpisode": "rllib_odac.replay.episodes",
    "GoalReplay": "rllib_odac.replay.buffer",
    "Policy": "rllib_odac.deploy",
    "Run": "rllib_odac.experiments.run",
    "RunSpec": "rllib_odac.experiments.spec",
    "TabularODAC": "rllib_odac.maths.tabular",
    "export_policy": "rllib_odac.deploy",
    "goal_env": "rllib_odac.envs",
    "load_policy": "rllib_odac.deploy",
    "make_env": "rllib_odac.envs",
    "make_vector_env": "rllib_odac.envs",
    "register_envs": "rllib_odac.envs",
}

__all__ = [
    "ODAC",
    "GoalEpisode",
    "GoalReplay",
    "ODACConfig",
    "ODACObjective",
    "Objective",
    "Policy",
    "Run",
    "RunSpec",
    "TabularODAC",
    "export_policy",
    "goal_env",
    "load_policy",
    "make_env",
    "make_vector_env",
    "register_envs",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rllib_odac' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__


try:
    importlib.import_module("rllib_odac.envs")  # which registers them
except ModuleNotFoundError as missing:
    if missing.name != "gymnasium":  # a robot that only loads a policy does without
        raise

"""`SweepTrial`: the Algorithm as Ray Tune runs it, with a budget and figures in every result."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from ray.rllib.utils.annotations import override

from rllib_odac.algorithm import ODAC
from rllib_odac.config import ODACConfig
from rllib_odac.learner import ODACTorchLearner
from rllib_odac.runs import FIGURES, RunSpec

TRIAL_STATE = "sweep_trial"


class SweepConfig(ODACConfig):
    """`ODACConfig` with what a trial of a sweep is told: when it ends, and how thoroughly."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SweepTrial)
        self.budget = 100_000  # environment steps
        self.stop_success: float | None = None  # success rate that ends the trial before
        self.final_episodes = 100  # of the last evaluation


class SweepTrial(ODAC):
    """ODAC for Ray Tune.

    Every result has the figures of `odac train` (`success_rate`, `final_distance`,
    `normalized_distance`) from an evaluation on held-out goals, whether or not a training episode
    ended in that iteration, and `env_steps`, `updates` and `finished`. A trial ends as a run does:
    at its budget or stop rule, with a thorough evaluation.
    """

    config: SweepConfig

    @classmethod
    @override(ODAC)
    def get_default_config(cls) -> SweepConfig:
        return SweepConfig()

    @override(ODAC)
    def setup(self, config: SweepConfig) -> None:
        self._finished = False
        super().setup(config)

    @override(ODAC)
    def step(self) -> dict[str, Any]:
        config = self.config
        if self._finished:  # restored from its end, because the sweep was killed before it saw it
            return self._reported({}, self.evaluate_held_out(config.final_episodes))
        left = config.budget - self.env_steps
        self.end_at(config.budget)
        if left < config.min_sample_timesteps_per_iteration:
            self.shorten_iteration(max(left, 1))
        result = super().step()
        figures = result["evaluation"]["env_runners"]
        stop = config.stop_success
        if self.env_steps >= config.budget or (stop and figures["success_rate"] >= stop):
            self.drain()
            figures = self.evaluate_held_out(config.final_episodes)
            solved = stop is not None and figures["success_rate"] >= stop
            self._finished = solved or self.env_steps >= config.budget
        return self._reported(result, figures)

    def _reported(self, result: dict[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
        return result | {
            **{name: float(figures[name]) for name in FIGURES},
            "env_steps": self.env_steps,
            "updates": self.updates,
            "finished": self._finished,
            "done": self._finished,
        }

    @override(ODAC)
    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        super().restore_from_path(path, *args, **kwargs)
        kl_weight = self.config.kl_weight
        if isinstance(kl_weight, str):  # "auto": learned, as the networks are
            return
        # A member of a population takes over another's networks and goes on with its own
        # settings. The learning rate is set by each update; this one lies with the networks.
        set_kl_weight = functools.partial(_set_kl_weight, kl_weight=kl_weight)
        for result in self.learner_group.foreach_learner(set_kl_weight):
            result.get()

    @override(ODAC)
    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, **kwargs)
        if self._check_component(TRIAL_STATE, components, kwargs.get("not_components")):
            state[TRIAL_STATE] = {"finished": self._finished}
        return state

    @override(ODAC)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if TRIAL_STATE in state:
            self._finished = state[TRIAL_STATE]["finished"]


def trial_parameters(spec: RunSpec, resources: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a trial as Tune passes it on: what differs from the defaults.

    Args:
        spec: The run.
        resources: Further fields of `ODACConfig`: how many processes, and what each takes.

    Raises:
        ValueError: With one sentence on the first setting that is wrong.
    """
    config = spec.config()
    return {
        "env": spec.env,
        "objective": spec.objective,
        **spec.settings,
        "seed": spec.seed,
        "rollout_fragment_length": config.rollout_fragment_length,
        "min_sample_timesteps_per_iteration": spec.evaluate_every,
        "evaluation_duration": spec.evaluation_episodes,
        "budget": spec.steps,
        "stop_success": spec.stop_success,
        "final_episodes": spec.final_episodes,
        "log_level": "ERROR",
        **resources,
    }


def _set_kl_weight(learner: ODACTorchLearner, kl_weight: float) -> None:
    logarithm = math.log(kl_weight) if kl_weight > 0 else -math.inf
    learner.goal_module.log_kl_weight.fill_(logarithm)

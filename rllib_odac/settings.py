"""What each setting may be: a check of its value alone, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, and not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


Rule = tuple[Callable[[Any], bool], str]


def _optional(rule: Rule) -> Rule:
    is_allowed, allowed = rule
    return lambda value: value is None or is_allowed(value), f"{allowed}, or None"


def _or_auto(rule: Rule) -> Rule:
    is_allowed, allowed = rule
    return lambda value: value == "auto" or is_allowed(value), f'{allowed}, or "auto"'


_FRACTION: Rule = (lambda v: _is_number(v) and 0 < v < 1, "a number strictly between 0 and 1")
_PROBABILITY: Rule = (lambda v: _is_number(v) and 0 <= v <= 1, "a number in [0, 1]")
_POSITIVE: Rule = (lambda v: _is_number(v) and v > 0, "a positive number")
_NON_NEGATIVE: Rule = (lambda v: _is_number(v) and v >= 0, "a number of at least 0")
_COUNT: Rule = (lambda v: _is_int(v) and v >= 1, "a whole number of at least 1")
_COUNT_FROM_0: Rule = (lambda v: _is_int(v) and v >= 0, "a whole number of at least 0")
_SWITCH: Rule = (lambda v: isinstance(v, bool), "True or False")
_MAPPING: Rule = (
    lambda v: isinstance(v, Mapping) and all(isinstance(name, str) for name in v),
    "a mapping of names, such as {'key': value}",
)

RULES: dict[str, Rule] = {
    "prior_discount": _FRACTION,
    "max_discount": (
        lambda v: v is None or v == "prior" or _FRACTION[0](v),
        'a number strictly between 0 and 1, "prior", or None for no limit',
    ),
    "dynamics_min_scale": _FRACTION,
    "fixed_dynamics_scale": _FRACTION,
    "dynamics_background": (lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
    "tau": (lambda v: _is_number(v) and 0 < v <= 1, "a number in (0, 1]"),
    "random_action_share": _PROBABILITY,
    "kl_weight": _or_auto(_NON_NEGATIVE),
    "goal_scale": _or_auto(_POSITIVE),
    "success_distance": _or_auto(_POSITIVE),
    "updates_per_env_step": _NON_NEGATIVE,
    "action_noise": _NON_NEGATIVE,
    "num_critics": _COUNT,
    "replay_capacity": _COUNT,
    "train_batch_size_per_learner": _COUNT,
    "num_envs_per_env_runner": _COUNT,
    "num_threads": _COUNT,
    "evaluation_duration": _COUNT,
    "random_action_steps": _COUNT,
    "max_episode_steps": _optional(_COUNT),
    "num_steps_before_learning": _COUNT_FROM_0,
    "asynchronous": _or_auto(_SWITCH),
    "max_weight_lag": _COUNT_FROM_0,
    "max_requests_in_flight_per_env_runner": _COUNT,
    "num_initial_random_steps": _COUNT_FROM_0,
    "learn_discount": _SWITCH,
    "learn_dynamics": _SWITCH,
    "critic_layer_norm": _SWITCH,
    "checkpoint_replay": _SWITCH,
    "dynamics_distribution": (lambda v: v in ("laplace", "gaussian"), '"laplace" or "gaussian"'),
    "on_divergence": (lambda v: v in ("stop", "skip"), '"stop" or "skip"'),
    "matmul_precision": (
        lambda v: v in ("highest", "high", "medium"),
        '"highest", "high" or "medium"',
    ),
    "hidden": (
        lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(_COUNT[0](w) for w in v),
        "a non-empty list of whole numbers of at least 1",
    ),
    "relabel": (
        lambda v: v == "auto" or isinstance(v, Mapping),
        'a mixture such as {"future": 0.8, "own": 0.2}, or "auto"',
    ),
    "exploration_goals": (
        lambda v: isinstance(v, str | Mapping),
        'the name of a source of goals, or a mixture such as {"achieved": 1.0}',
    ),
    "objective_settings": _MAPPING,
    "env_config": _MAPPING,
    "lr": (
        lambda v: _POSITIVE[0](v) or (isinstance(v, list | tuple) and len(v) > 1),
        "a positive number, or a schedule [[steps, value], ...]",
    ),
    "grad_clip": _optional(_POSITIVE),
    "rollout_fragment_length": _COUNT,
    "min_sample_timesteps_per_iteration": _COUNT,
    "sample_timeout_s": _POSITIVE,
    "env_runner_restore_timeout_s": _POSITIVE,
    "restart_failed_env_runners": _SWITCH,
    "max_num_env_runner_restarts": _COUNT_FROM_0,
    "restart_failed_sub_environments": _SWITCH,
    "num_consecutive_env_runner_failures_tolerance": _COUNT_FROM_0,
    "num_cpus_per_env_runner": _NON_NEGATIVE,
    "num_gpus_per_env_runner": _NON_NEGATIVE,
    "num_cpus_per_learner": _or_auto(_NON_NEGATIVE),
    "num_gpus_per_learner": _NON_NEGATIVE,
    "seed": _optional((lambda v: _is_int(v) and 0 <= v < 2**32, "a whole number in [0, 2^32)")),
}


def check(name: str, value: Any) -> None:
    """Checks the value of a setting by itself.

    Raises:
        ValueError: With one sentence that names the setting, its value and what is allowed.
    """
    is_allowed, allowed = RULES[name]
    try:
        fits = bool(is_allowed(value))
    except (ValueError, TypeError):  # it cannot even be compared, as an array of numbers
        fits = False
    if not fits:
        raise ValueError(f"{name} is {shown(value)}, but must be {allowed}.")


# What `apply_settings` takes; the rest has a section or an option of its own.
SETTINGS = ["objective", *(name for name in RULES if name != "seed")]

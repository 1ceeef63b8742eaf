"""The private parts of Ray, RLlib and PyTorch that this package touches, each with its reason.

A new release of one of them is checked here first. Hooks that RLlib's classes offer to subclasses,
with or without an underscore, stand where they are overridden.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager


def env_runner_manager(group: EnvRunnerGroup) -> FaultTolerantActorManager:
    """The actors of a group by number, and which of them are healthy; RLlib's own calls wait."""
    return group._worker_manager


def ignores_env_runner_errors(group: EnvRunnerGroup) -> bool:
    """Whether the configuration lets training go on without an env runner that has died."""
    return bool(group._ignore_ray_errors_on_env_runners)


def learner_actors(group: LearnerGroup) -> list[Any]:
    """The remote learners, to call each without the queue of `LearnerGroup`, which drops calls."""
    return list(group._worker_manager.actors().values())


def all_in_service(group: LearnerGroup) -> bool:
    """Whether RLlib still calls every remote learner: one that failed to answer it leaves out."""
    manager = group._worker_manager
    return bool(manager.num_healthy_actors() == manager.num_actors())


def local_learner(group: LearnerGroup) -> Any:
    """The learner in this process."""
    return group._learner


def is_dead(actor: Any) -> bool:
    """Whether an actor is gone and will not be restarted, which its handle does not tell."""
    state = ray._private.state.actors(actor_id=actor._actor_id.hex())
    return bool(state) and state["State"] == "DEAD"


def draining_nodes() -> set[str]:
    """Ids of nodes that Ray has been told to empty, since they are going away."""
    return set(ray._private.state.state.get_draining_nodes())


def was_restarted() -> bool:
    """Whether this process is an actor that died before."""
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and bool(context.was_current_actor_reconstructed)


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """What is free on each node now; Ray's public function adds all nodes up."""
    from ray._private.state import available_resources_per_node

    resources: dict[str, dict[str, float]] = available_resources_per_node()
    return resources


def canonical_address(address: str) -> str | None:
    """An address as Ray itself understands it, "auto" included; None if there is no cluster."""
    from ray._private.services import canonicalize_bootstrap_address

    canonical: str | None = canonicalize_bootstrap_address(address)
    return canonical


def resource_bundles(config: Any) -> dict[str, list[dict[str, float]]]:
    """What RLlib asks of Ray for each process of an algorithm, by the setting of their number.

    "jobs" is the process that the algorithm runs in.
    """
    from ray.rllib.algorithms import utils

    evaluation = config.get_evaluation_config_object()
    return {
        "jobs": [utils._get_main_process_bundle(config)],
        "num_env_runners": utils._get_env_runner_bundles(config),
        "evaluation_num_env_runners": utils._get_env_runner_bundles(evaluation),
        "num_learners": utils._get_learner_bundles(config) if config.num_learners else [],
    }


def autoscaler_status() -> tuple[bool, bytes | None]:
    """Whether the autoscaler's second version runs, and what the first one reports as JSON."""
    from ray.experimental.internal_kv import _internal_kv_get

    is_v2 = _internal_kv_get("__autoscaler_v2_enabled", namespace="__autoscaler") == b"1"
    return is_v2, _internal_kv_get("__autoscaling_status")


def next_checkpoint(storage: Any) -> tuple[Any, str]:
    """File system and path where Tune will store the checkpoint that is being saved."""
    following = copy.copy(storage)
    following._update_checkpoint_index({})
    return following.storage_filesystem, following.checkpoint_fs_path


def registered_env_creator(name: Any) -> Callable[[Mapping[str, Any]], Any] | None:
    """The function that was registered with Tune for an environment's name, if there is one."""
    from ray.tune.registry import ENV_CREATOR, _global_registry

    if isinstance(name, str) and _global_registry.contains(ENV_CREATOR, name):
        creator: Callable[[Mapping[str, Any]], Any] = _global_registry.get(ENV_CREATOR, name)
        return creator
    return None


def forget_failures(trial: Any) -> None:
    """Begins to count a trial's failures anew, which Tune compares with `max_failures`."""
    trial.run_metadata.num_failures = 0


def set_search_algorithm(tuner: Any, algorithm: Any) -> None:
    """Gives a restored tuner another search algorithm than the one that was stored with it."""
    tuner._local_tuner._tune_config.search_alg = algorithm


def training_result(checkpoint: Any, metrics: Mapping[str, Any]) -> Any:
    """What Tune takes for a saved trial, for one that is not saved again."""
    from ray.train._internal.session import _TrainingResult

    return _TrainingResult(checkpoint, metrics)


def recompute_in_backward_pass() -> None:
    """Lets compiled code recompute cheap activations, instead of storing masks of ReLUs.

    On CPUs storing them takes half of an update's time.
    """
    import torch

    torch._functorch.config.aggressive_recomputation = True

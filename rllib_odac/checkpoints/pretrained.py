"""Beginning with the networks of another run: what `odac train --from` takes over."""

from __future__ import annotations

import functools
import io
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_odac.agent.action_prior import PREVIOUS
from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.checkpoints.find import open_checkpoint, resolve_checkpoint
from rllib_odac.checkpoints.networks import ARRAYS, CONFIG, DIRECTORY
from rllib_odac.checkpoints.shards import on_each
from rllib_odac.rl_module import NETWORKS
from rllib_odac.settings import SETTINGS
from rllib_odac.storage import PLACE

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig
    from rllib_odac.learner import ODACTorchLearner

# Settings that give networks their form, those of many networks first.
FORM = (
    "hidden", "layer_norm", "fourier_features", "num_critics", "dynamics_members", "action_prior",
    "behavior_components", "values", "objective", "objective_settings",
)  # fmt: skip

logger = logging.getLogger(__name__)


def begin_with(config: ODACConfig, group: LearnerGroup, path: PLACE) -> None:
    """Gives learners what `pretrained` finds in a checkpoint, and nothing else of it.

    Args:
        config: What the learners were built with.
        group: The learners.
        path: A checkpoint, or a run, whose newest one is taken.

    Raises:
        ValueError: As of `pretrained`.
    """
    arrays, missing = pretrained(config, path)
    if missing:
        logger.warning("Trained from scratch, as '%s' has none: %s.", path, ", ".join(missing))
    on_each(group, functools.partial(_take, arrays=arrays))


def pretrained(config: ODACConfig, path: PLACE) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Networks, input statistics and the unit of goals that a run can begin with.

    Args:
        config: The run's, validated.
        path: A checkpoint, or a run, whose newest one is taken.

    Returns:
        Arrays by their name in `ActorCritic`, and the networks that the checkpoint does not hold,
        such as values that only this run learns.

    Raises:
        ValueError: If the checkpoint is damaged, or holds a network in another form.
    """
    checkpoint, _ = open_checkpoint(resolve_checkpoint(path))
    with (checkpoint / DIRECTORY / CONFIG).open() as file:
        settings = json.loads(file.readall())
    with (checkpoint / DIRECTORY / ARRAYS).open() as file:
        stored = np.load(io.BytesIO(file.readall()), allow_pickle=False)
        theirs = _by_network({name.removeprefix(NETWORKS): stored[name] for name in stored})
    ours = _by_network(_untrained(config).state_dict())
    if not config.kl_weight == _setting(settings, "kl_weight") == "auto":
        del ours["log_kl_weight"]  # a setting, unless both learn it
    if config.action_prior == PREVIOUS:
        del ours["action_prior"]  # a copy of the policy, which `_take` makes
    taken: dict[str, NDArray[Any]] = {}
    for network in filter(theirs.__contains__, ours):
        own, other = (
            {name: tuple(array.shape) for name, array in arrays[network].items()}
            for arrays in (ours, theirs)
        )
        if own != other:
            found = _differing_setting(config, settings) or _differing_shape(own, other)
            raise ValueError(f"{found} to begin with the {network} of '{checkpoint}'.")
        taken |= theirs[network]
    return taken, [network for network in ours if network not in theirs]


def _untrained(config: ODACConfig) -> ActorCritic:
    widths, actions = config.widths, config.actions
    with torch.random.fork_rng(devices=[]):  # what is random in the run stays as it is
        return ActorCritic(
            widths["observation"],
            widths["desired_goal"],
            actions.width,
            is_finite=actions.choices is not None,
            **config.model_config,
        )


def _by_network(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        found.setdefault(name.partition(".")[0], {})[name] = array
    return found


def _setting(settings: Mapping[str, Any], name: str) -> Any:
    return settings.get(name, SETTINGS[name].default)


def _differing_setting(config: ODACConfig, settings: Mapping[str, Any]) -> str | None:
    for name in FORM:
        given = getattr(config, name), _setting(settings, name)
        own, other = (json.loads(json.dumps(value, default=str)) for value in given)
        if own != other and name not in settings["objects"]:
            return f"{name} is {own!r}, but must be {other!r}"
    return None


def _differing_shape(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    name = next(name for name in (*own, *other) if own.get(name) != other.get(name))
    return f"{name} has shape {own.get(name)} in these spaces, but must have {other.get(name)}"


def _take(learner: ODACTorchLearner, arrays: Mapping[str, NDArray[Any]]) -> None:
    networks = learner.networks
    own = networks.state_dict()
    for name, array in arrays.items():
        own[name].copy_(torch.from_numpy(array))
    networks.action_prior.follow(networks.policy, 0)

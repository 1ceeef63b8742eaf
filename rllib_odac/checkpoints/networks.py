"""The folder `networks/` of a checkpoint: all networks and what they are for, without a pickle.

networks.npz   every array of the `ODACRLModule`, by its name there
config.json    the environment, and the settings that are not at their defaults

RLlib pickles both. Those who only look at a checkpoint, or evaluate it, read this folder, so that
looking at somebody else's runs nothing that came with it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rllib_odac.deploy.files import policy_files
from rllib_odac.settings import SETTINGS

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig

DIRECTORY = "networks"
ARRAYS = "networks.npz"
CONFIG = "config.json"


def plain_files(
    weights: Mapping[str, Any], spaces: tuple[Any, Any], config: ODACConfig, *trained_for: int
) -> dict[str, bytes]:
    """The files of a checkpoint that can be read without a pickle, by name.

    Args:
        weights: State of an `ODACRLModule` with everything in it.
        spaces: Of observations and actions.
        config: What it was trained with.
        *trained_for: Environment steps and updates.
    """
    env_steps, updates = trained_for
    policy = policy_files(
        weights,
        *spaces,
        env=str(config.env or config.data),
        objective=type(config.build_objective()).__name__,
        env_steps=env_steps,
        updates=updates,
        hidden=tuple(config.hidden),
    )
    return policy | networks_files(weights, config)


def networks_files(weights: Mapping[str, Any], config: ODACConfig) -> dict[str, bytes]:
    """The files of the folder, by their name in a checkpoint.

    Args:
        weights: State of an `ODACRLModule` with everything in it.
        config: What it was trained with. What of it JSON cannot hold, such as an environment that
            is a function, is written as its name and listed as `objects`.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in weights.items()}
    np.savez(stream, **arrays)
    values = {name: getattr(config, name) for name in SETTINGS}
    given = {n: v for n, v in values.items() if _is_other(v, SETTINGS[n].default)}
    given["env_config"] = dict(config.env_config)
    objects = sorted(name for name, value in given.items() if not _is_json(value))
    if not config.names_environment:
        objects.append("env")
    stored = {
        "env": str(config.env),
        "env_config": None,
        **{name: value for name, value in given.items() if name not in objects},
        "objects": objects,
    }
    return {
        f"{DIRECTORY}/{ARRAYS}": stream.getvalue(),
        f"{DIRECTORY}/{CONFIG}": (json.dumps(stored, indent=2, allow_nan=False) + "\n").encode(),
    }


def read_settings(checkpoint: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The environment, its arguments and the settings in a checkpoint's `networks/config.json`.

    Raises:
        ValueError: If it names objects that JSON cannot hold, or cannot be read.
    """
    file = checkpoint / DIRECTORY / CONFIG
    try:
        stored: dict[str, Any] = json.loads(file.read_bytes())
        env, env_config, objects = (stored.pop(name) for name in ("env", "env_config", "objects"))
    except FileNotFoundError:
        raise ValueError(
            f"The checkpoint '{checkpoint}' was written before checkpoints held '{DIRECTORY}/"
            f"{CONFIG}'; restore it and save it again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{file}' cannot be read: {error!r}.") from None
    if objects:
        raise ValueError(
            f"'{file}' names {' and '.join(objects)} as objects of Python ({env}), which only "
            "unpickling brings back, and that may run whatever the file's author likes: say that "
            "you trust it, with trust=True or --trust."
        )
    return env, env_config, stored


def read_networks(checkpoint: Path) -> dict[str, NDArray[Any]]:
    """The arrays in a checkpoint's `networks/networks.npz`.

    Raises:
        ValueError: If they cannot be read.
    """
    file = checkpoint / DIRECTORY / ARRAYS
    try:
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{file}' cannot be read: {' '.join(str(error).split())}") from None


def _is_other(value: Any, default: Any) -> bool:
    return type(value) is not type(default) or value != default


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True

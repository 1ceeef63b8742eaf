"""The folder `policy/` of a checkpoint: `policy.npz` and `policy.json`, which need no Ray to read.

policy.npz    the policy's and the normalisers' arrays, by the names that `ActorCritic` gives them
policy.json   what `PolicySpec` says
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rllib_odac.deploy.network import PolicyNetwork
from rllib_odac.deploy.spec import ACTION, INPUTS, BoxSpec, PolicySpec

DIRECTORY = "policy"
ARRAYS = "policy.npz"
SPEC = "policy.json"
CHECKPOINT_MANIFEST = "odac.json"  # written last: a checkpoint without it is not whole
COMPONENTS = ("policy.", "observation_normalizer.", "goal_center", "goal_scale")
NOT_NEEDED = "goal_scale_known"  # only says whether the scale is still to be found


def policy_files(
    weights: Mapping[str, Any], observation: Mapping[str, Any], action: Any, **facts: Any
) -> dict[str, bytes]:
    """The files of the folder `policy/`, by their name in a checkpoint.

    Args:
        weights: State of an `ODACRLModule`.
        observation: Spaces of a goal environment by name.
        action: Space of its actions.
        **facts: Further fields of `PolicySpec`.
    """
    from rllib_odac.envs.actions import actions_of  # Gymnasium, which loading does without

    spaces = {name: BoxSpec.of(observation[name]) for name in INPUTS}
    choices = actions_of(action).choices
    if choices is None:
        spec = PolicySpec(spaces=spaces | {ACTION: BoxSpec.of(action)}, **facts)
    else:
        box = BoxSpec.between(choices.min(0), choices.max(0))
        flat = tuple(tuple(row) for row in choices.reshape(len(choices), -1).tolist())
        spec = PolicySpec(spaces=spaces | {ACTION: box}, choices=flat, **facts)
    networks = {name.removeprefix("networks."): array for name, array in weights.items()}
    arrays = {
        name: np.asarray(array)
        for name, array in networks.items()
        if name.startswith(COMPONENTS) and name != NOT_NEEDED
    }
    return files_of(spec, arrays)


def files_of(spec: PolicySpec, arrays: Mapping[str, Any]) -> dict[str, bytes]:
    """The same.

    Args:
        spec: What the policy says of itself.
        arrays: Those of `PolicyNetwork`, by name.
    """
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return {
        f"{DIRECTORY}/{ARRAYS}": stream.getvalue(),
        f"{DIRECTORY}/{SPEC}": spec.to_json().encode(),
    }


def read_policy(path: Path) -> tuple[PolicySpec, PolicyNetwork]:
    """Reads the policy of a checkpoint, of a run's newest checkpoint or of a folder `policy/`.

    Raises:
        ValueError: If there is none in that directory, or it is damaged.
    """
    directory = _policy_directory(path)
    spec = PolicySpec.from_json((directory / SPEC).read_bytes(), directory / SPEC)
    try:
        with np.load(directory / ARRAYS, allow_pickle=False) as stored:
            return spec, PolicyNetwork(spec, dict(stored))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"'{directory / ARRAYS}' is damaged: {text}") from None


def _policy_directory(path: Path) -> Path:
    if (path / SPEC).is_file():
        return path
    if (path / DIRECTORY / SPEC).is_file():
        return path / DIRECTORY
    steps = {p: _steps(p) for p in (*path.glob("checkpoints/*"), path / "checkpoint_final")}
    whole = [p for p, number in steps.items() if number >= 0]
    if whole:  # a run that has gone on is past its final checkpoint
        return max(whole, key=lambda p: steps[p]) / DIRECTORY
    if (path / CHECKPOINT_MANIFEST).is_file():
        raise ValueError(
            f"The checkpoint '{path}' was written before checkpoints held '{DIRECTORY}/{SPEC}'; "
            "restore it and save it again."
        )
    raise ValueError(
        f"'{path}' holds no policy: it must be a checkpoint or a run directory of ODAC, or a file "
        "that `odac export` wrote."
    )


def _steps(checkpoint: Path) -> int:
    """Steps behind a whole checkpoint's policy; -1 if it is none or has none."""
    if checkpoint.suffix == ".partial" or not (checkpoint / DIRECTORY / SPEC).is_file():
        return -1
    try:
        manifest = json.loads((checkpoint / CHECKPOINT_MANIFEST).read_text())
        return int(manifest.get("steps", manifest["env_steps"]))
    except (OSError, ValueError, KeyError, TypeError):
        return -1

"""`export_policy`: a policy in one file for other programs, checked before it is left there."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rllib_odac.deploy.files import read_policy
from rllib_odac.deploy.here import policy_here
from rllib_odac.deploy.load import METADATA, Array, load_exported, network_act
from rllib_odac.deploy.network import PolicyNetwork
from rllib_odac.deploy.spec import INPUTS, PolicySpec

CHECKED_STATES = 1000
TOLERANCE = 1e-5  # of actions, in units of half their range
ROUNDING = 4  # or so many times what float32 costs the policy itself: sharp ones magnify it


def export_policy(checkpoint: str | Path, out: str | Path, format: str = "onnx") -> float:
    """Writes the deterministic policy of a checkpoint, normalisation and action bounds inside.

    The file has float32 inputs `observation` (B, D), `achieved_goal` and `desired_goal` (B, G) in
    the environment's units and the output `action` (B, A) in its bounds, for any B. It is opened
    again and compared with the checkpoint's policy on 1,000 random states, one by one and together,
    before it takes its name.

    Args:
        checkpoint: A checkpoint, or a run directory, or the URI of one.
        out: The file.
        format: "onnx", "torchscript" or "torch-export" (`torch.export`, .pt2).

    Returns:
        The largest difference between the two, in units of half the range of an action.

    Raises:
        ValueError: If there is no such format, no policy in that directory, a package is missing,
            the file cannot be written, or it acts differently by more than 1e-5 (by more than four
            times what rounding to float32 does to the policy itself, if that is more).
    """
    if format not in FORMATS:
        raise ValueError(f"format is '{format}', but must be one of {list(FORMATS)}.")
    checkpoint, out = policy_here(checkpoint), Path(out)
    if not checkpoint.is_dir():
        raise ValueError(f"'{checkpoint}' is no directory; give a checkpoint or a run directory.")
    spec, network = read_policy(checkpoint)
    network = copy.deepcopy(network).float()
    content = FORMATS[format](network, spec)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        difference, allowed = _compare(partial, network, spec)
        if not difference <= allowed:
            raise ValueError(
                f"The exported policy differs from the checkpoint's by {difference:.2g} of half an "
                f"action's range, but must by at most {allowed:.2g}: '{out}' was not written."
            )
        partial.replace(out)
    except OSError as error:
        raise ValueError(f"out is '{out}', which cannot be written: {error}.") from None
    finally:
        with contextlib.suppress(OSError):  # there is none, or not even a directory
            partial.unlink()
    return difference


def random_states(network: PolicyNetwork, spec: PolicySpec, number: int, seed: int) -> list[Array]:
    """Observations and goals about as far apart as in training, and some far outside."""
    rng = np.random.default_rng(seed)
    normalizer = network.observation_normalizer
    places = {INPUTS[0]: (normalizer.mean, normalizer.std)}
    states = []
    for name in INPUTS:
        center, unit = places.get(name, (network.goal_center, network.goal_scale))
        spread = rng.choice([0.1, 1.0, 3.0], size=(number, 1))
        noise = spread * rng.standard_normal((number, spec.spaces[name].size))
        states.append((center.numpy() + unit.numpy() * noise).astype(np.float32))
    return states


def _compare(path: Path, network: PolicyNetwork, spec: PolicySpec) -> tuple[float, float]:
    """Largest difference between the actions of a file and of the network, and what is allowed."""
    policy = load_exported(path)
    states = random_states(network, spec, CHECKED_STATES, seed=0)
    half_range = network.action_range.numpy() / 2
    half_range = np.where(half_range > 0, half_range, 1)  # of one that is fixed
    wanted = network_act(network, spec)(states)
    together = policy(dict(zip(INPUTS, states, strict=True))).reshape(wanted.shape)
    rows = zip(*states, strict=True)
    alone = np.stack([policy(dict(zip(INPUTS, row, strict=True))) for row in rows])
    alone = alone.reshape(wanted.shape)
    exact = network_act(copy.deepcopy(network).double(), spec)([s.astype(float) for s in states])
    rounding = np.max(np.abs(wanted - exact) / half_range)
    difference = np.max(np.abs(np.stack([together, alone]) - wanted) / half_range)
    return float(difference), max(TOLERANCE, ROUNDING * float(rounding))


def _onnx(network: PolicyNetwork, spec: PolicySpec) -> bytes:
    try:
        from rllib_odac.deploy.onnx_graph import onnx_model
    except ModuleNotFoundError as error:
        raise ValueError(
            f"ONNX needs the package '{error.name}': pip install \"rllib-odac[export]\"."
        ) from None
    return bytes(onnx_model(network, spec, METADATA).SerializeToString())


def _torchscript(network: PolicyNetwork, spec: PolicySpec) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # `torch.export` is its successor
        trace: Any = torch.jit.trace  # which has no annotations
        traced = trace(network, _examples(spec))
        torch.jit.save(torch.jit.freeze(traced), stream, {METADATA: spec.to_json()})
    return stream.getvalue()


def _torch_export(network: PolicyNetwork, spec: PolicySpec) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch} for name in INPUTS}
    program = torch.export.export(network, _examples(spec), dynamic_shapes=shapes)
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={METADATA: spec.to_json()})
    return stream.getvalue()


def _examples(spec: PolicySpec) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(2, spec.spaces[name].size) for name in INPUTS)


FORMATS: dict[str, Callable[[PolicyNetwork, PolicySpec], bytes]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "torch-export": _torch_export,
}

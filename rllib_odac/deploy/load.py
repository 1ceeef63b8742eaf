"""`load_policy`: a stored policy as a function from an observation to an action."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from rllib_odac.deploy.files import read_policy
from rllib_odac.deploy.here import policy_here
from rllib_odac.deploy.network import PolicyNetwork
from rllib_odac.deploy.spec import ACTION, INPUTS, PolicySpec

Array: TypeAlias = NDArray[Any]
Act: TypeAlias = Callable[[list[Array]], Array]  # of float32 (B, D), (B, G), (B, G); gives (B, A)

METADATA = "policy.json"  # the name under which exported files hold their `PolicySpec`


class Policy:
    """A function from an observation, or a batch of them, to an action in the environment's bounds.

    Attributes:
        spec: The spaces, the environment and how long it was trained.
    """

    def __init__(self, spec: PolicySpec, act: Act) -> None:
        self.spec = spec
        self._act = act

    def __call__(self, observation: Mapping[str, ArrayLike]) -> Array:
        """The action for an observation.

        Args:
            observation: What a goal environment gives: `observation`, `achieved_goal` and
                `desired_goal` in its units, each of its space's shape, or with a batch axis before
                it. Other entries are ignored.

        Returns:
            The action, as the environment takes it, or (B, ...) of them for a batch.

        Raises:
            ValueError: If an entry is missing, of another shape or not finite.
        """
        columns = [self._column(observation, name) for name in INPUTS]
        batched = columns[0].ndim > len(self.spec.spaces[INPUTS[0]].shape)
        rows = []
        for name, values in zip(INPUTS, columns, strict=True):
            shape = self.spec.spaces[name].shape
            wanted = columns[0].shape[:1] + shape if batched else shape
            if values.shape != wanted:
                raise ValueError(
                    f"{name} has shape {values.shape}, but must have {wanted}, as '{INPUTS[0]}' "
                    f"has {columns[0].shape}."
                )
            rows.append(values.reshape(len(values) if batched else 1, -1))
        actions = self._act(rows).reshape(len(rows[0]), *self.spec.spaces[ACTION].shape)
        return actions if batched else actions[0]

    def _column(self, observation: Mapping[str, ArrayLike], name: str) -> Array:
        if not isinstance(observation, Mapping) or name not in observation:
            held = list(observation) if isinstance(observation, Mapping) else type(observation)
            raise ValueError(
                f"The observation must hold {list(INPUTS)}, but '{name}' is not in {held}."
            )
        try:
            values = np.array(observation[name], dtype=np.float32)
        except (ValueError, TypeError):
            raise ValueError(
                f"{name} is {observation[name]!r}, but must be an array of numbers."
            ) from None
        shape = self.spec.spaces[name].shape
        if values.shape != shape and (values.shape[1:] != shape or not len(values)):
            batch = ", ".join(("B", *map(str, shape)))
            raise ValueError(
                f"{name} has shape {values.shape}, but must have {shape}, or ({batch}) as a batch."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity, but every value must be finite.")
        return values


def load_policy(
    path: str | Path,
    *,
    sample: bool = False,
    seed: int | np.random.Generator | None = None,
) -> Policy:
    """Loads a policy, without Ray and without the environment.

    ```python
    policy = load_policy("runs/reach")
    action = policy(observation)
    ```

    Args:
        path: A checkpoint, a run directory (its newest checkpoint) or a file that `odac export`
            wrote, of any format, or the URI of one (`s3://...`). Load exported files only if you
            trust them.
        sample: Draw actions from the policy's distribution; else they are its squashed mean, as in
            evaluation. Exported files hold the mean only.
        seed: Of the draws: a number or a NumPy generator.

    Returns:
        A function of observations, see `Policy`.

    Raises:
        ValueError: If there is no policy at `path`, it is damaged or cannot be sampled from, or
            there is a seed but nothing to draw.
    """
    path = policy_here(path)
    if not path.exists():
        raise ValueError(f"There is no checkpoint, run or exported policy '{path}'.")
    if seed is not None and not sample:
        raise ValueError(f"seed is {seed!r}, but sample is False: nothing is drawn.")
    if not path.is_dir():
        if sample:
            raise ValueError(
                f"sample is True, but '{path}' is an exported policy, which holds the "
                "deterministic actions only; load the checkpoint to sample."
            )
        return load_exported(path)
    spec, network = read_policy(path)
    rng = np.random.default_rng(seed) if sample else None
    return Policy(spec, network_act(network, spec, rng))


def network_act(
    network: PolicyNetwork, spec: PolicySpec, rng: np.random.Generator | None = None
) -> Act:
    """The actions of a network: its mean's or, with a generator, drawn ones."""
    action_dim = network.policy.action_dim

    def act(rows: list[Array]) -> Array:
        tensors = [torch.from_numpy(values) for values in rows]
        with torch.inference_mode():
            if rng is None:
                actions = network(*tensors)
            else:
                observation, achieved_goal, goal = tensors
                noise = rng.standard_normal((len(rows[0]), action_dim), dtype=np.float32)
                actions = network.sample(observation, achieved_goal, goal, torch.from_numpy(noise))
        return np.asarray(actions.numpy())

    return act


def load_exported(path: Path) -> Policy:
    """The policy of an exported file, whose format is told by its content.

    What a name promises has to be inside: TorchScript and `torch.export` may hold code, and nobody
    expects any in a file called .onnx.

    Raises:
        ValueError: If it is none, or the package that opens it is not installed.
    """
    try:
        held = _format(path)
        promised = SUFFIXES.get(path.suffix.lower(), held)
        if held != promised:
            raise ValueError(f"it is called {path.suffix}, but is a file of {held}.")
        text, act = OPENERS[held](path)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"'{path}' needs the package '{error.name}': pip install \"rllib-odac[export]\"."
        ) from None
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"'{path}' is no policy that `odac export` wrote: {text}") from None
    return Policy(PolicySpec.from_json(text or "", path), act)


def _format(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "ONNX"
    with zipfile.ZipFile(path) as archive:
        is_torchscript = any("/code/" in name for name in archive.namelist())
    return "TorchScript" if is_torchscript else "torch.export"


def _open_onnx(path: Path) -> tuple[str, Act]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a small network gains nothing from more
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def act(rows: list[Array]) -> Array:
        return np.asarray(session.run([ACTION], dict(zip(INPUTS, rows, strict=True)))[0])

    return session.get_modelmeta().custom_metadata_map.get(METADATA, ""), act


def _open_torchscript(path: Path) -> tuple[str, Act]:
    extra = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # `torch.export` is its successor
        load: Any = torch.jit.load  # which has no annotations
        module = load(str(path), _extra_files=extra)
    return extra[METADATA], _torch_act(module)


def _open_torch_export(path: Path) -> tuple[str, Act]:
    extra = {METADATA: ""}
    with path.open("rb") as stream:  # PyTorch warns of a path that does not end in .pt2
        module = torch.export.load(stream, extra_files=extra).module()
    return extra[METADATA], _torch_act(module)


def _torch_act(module: Any) -> Act:
    def act(rows: list[Array]) -> Array:
        with torch.inference_mode():
            return np.asarray(module(*map(torch.from_numpy, rows)).numpy())

    return act


OPENERS: dict[str, Callable[[Path], tuple[str, Act]]] = {
    "ONNX": _open_onnx,
    "TorchScript": _open_torchscript,
    "torch.export": _open_torch_export,
}
SUFFIXES = {".onnx": "ONNX", ".pt": "TorchScript", ".ts": "TorchScript", ".pt2": "torch.export"}

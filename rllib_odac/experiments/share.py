"""A trained policy in a repository of a hub, in the convention of Hugging Face, and back.

README.md              the model card: task, figures with their seed, the command
policy.safetensors     the policy's arrays, and policy.json, what it says of itself
networks.safetensors   all networks, and networks.json, the environment and the settings
config.json            what `odac train --config` makes it with

Arrays are safetensors and the rest is JSON: using a stranger's policy unpickles nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rllib_odac.checkpoints.atomic import atomic_directory
from rllib_odac.checkpoints.find import CHECKPOINTS, checkpoint_here, resolve_checkpoint
from rllib_odac.checkpoints.manifest import write_manifest
from rllib_odac.checkpoints.networks import DIRECTORY as NETWORKS
from rllib_odac.deploy.files import DIRECTORY as POLICY
from rllib_odac.metrics import FIGURES
from rllib_odac.storage import PLACE, Storage

HUB = "hf://"  # before OWNER/NAME, on the hub that HF_ENDPOINT names, by default Hugging Face's
# The JSON files of a checkpoint by the name of their folder, which the repository has for the file.
JSON_FILES = {POLICY: "policy.json", NETWORKS: "config.json"}
CARD, CONFIG = "README.md", "config.json"


def push(checkpoint: PLACE, target: str) -> str:
    """Writes the policy of a checkpoint, or of a run's newest one, into a repository.

    Args:
        checkpoint: A run, whose figures the card tells, or a checkpoint; a path or URI.
        target: "hf://OWNER/NAME", or a directory, which may be a URI.

    Returns:
        Where it is now.

    Raises:
        ValueError: If there is no whole checkpoint, a package is missing, or the hub refuses.
    """
    _check_packages(target)
    from safetensors.numpy import save

    place = resolve_checkpoint(checkpoint)
    source = checkpoint_here(place)
    run = place.parent.parent if place.parent.name == CHECKPOINTS else place.parent
    config = (run / CONFIG).read_json()
    summary = (run / "summary.json").read_json()
    files: dict[str, bytes] = {}
    for folder, name in JSON_FILES.items():
        files[f"{folder}.json"] = (source / folder / name).read_bytes()
        with np.load(source / folder / f"{folder}.npz", allow_pickle=False) as arrays:
            files[f"{folder}.safetensors"] = save(
                {key: np.array(array, order="C") for key, array in arrays.items()}
            )
    spec = json.loads(files["policy.json"])
    if summary is not None and summary["updates"] != spec["updates"]:
        summary = None  # these are another checkpoint's figures
    if config is not None:
        files[CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
    files[CARD] = model_card(spec, config, summary, target).encode()
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)
        if not target.startswith(HUB):
            Storage.of(target).upload(directory)
            return str(Storage.of(target))
        from huggingface_hub import HfApi

        api, repository = HfApi(), target.removeprefix(HUB)
        with _explained(target):
            api.create_repo(repository, exist_ok=True)
            message = f"{spec['env']}, {spec['env_steps']:,} environment steps"
            api.upload_folder(repo_id=repository, folder_path=directory, commit_message=message)
        return f"{api.endpoint}/{repository}"


def pull(source: str, out: PLACE) -> Storage:
    """Makes a checkpoint of a repository, for `load_policy` and `odac evaluate`.

    It has no replay and no optimizers: training does not go on from it.

    Args:
        source: "hf://OWNER/NAME", or a directory, which may be a URI.
        out: The checkpoint's directory, or its URI.

    Raises:
        ValueError: If there is no such repository, it holds no policy, or a package is missing.
    """
    _check_packages(source)
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with tempfile.TemporaryDirectory() as directory:
        names = [f"{folder}.{kind}" for folder in JSON_FILES for kind in ("safetensors", "json")]
        files = {name: _fetched(source, name, Path(directory)) for name in names}
    try:
        stored: dict[str, Any] = {
            folder: load(files[f"{folder}.safetensors"]) for folder in JSON_FILES
        }
        spec = json.loads(files["policy.json"])
        content = {name: spec[name] for name in ("env", "env_steps", "updates")}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"source is '{source}', which is damaged: {error}.") from None
    place = Storage.of(out)
    if place.size is not None or place.names():
        raise ValueError(f"out is '{place}', which is there already; it must be empty or new.")
    with atomic_directory(place) as draft:
        for folder, name in JSON_FILES.items():
            stream = io.BytesIO()
            np.savez(stream, **stored[folder])
            (draft / folder).make_directory()
            (draft / folder / f"{folder}.npz").write_bytes(stream.getvalue())
            (draft / folder / name).write_bytes(files[f"{folder}.json"])
        write_manifest(draft, content, elsewhere={})
    return place


def model_card(
    spec: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    summary: Mapping[str, Any] | None,
    target: str,
) -> str:
    """The text of the card, with its front matter in YAML.

    Args:
        spec: What the policy says of itself.
        config: The run's; None of a bare checkpoint.
        summary: The run's figures, if they are of this checkpoint.
        target: The repository.
    """
    env, objective = spec["env"], spec["objective"].removesuffix("Objective")
    tags = ["reinforcement-learning", "goal-conditioned", "rllib", objective.lower(), env]
    front: dict[str, Any] = {
        "library_name": "rllib_odac", "pipeline_tag": "reinforcement-learning", "tags": tags,
    }  # fmt: skip
    figures = ""
    if summary is not None:
        known = {n: summary[n] for n in FIGURES if summary.get(n) is not None}
        metrics = [{"type": name, "value": value, "name": name} for name, value in known.items()]
        task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        result = {"task": task, "dataset": {"name": env, "type": env}, "metrics": metrics}
        front["model-index"] = [{"name": objective, "results": [result]}]
        rows = [f"| {FIGURES[n].meaning} | {v:.4g}{_unit(n)} |" for n, v in known.items()]
        figures = "\n".join(
            [
                f"Seed {summary['seed']}, {summary['evaluation_episodes']} held-out goals, "
                "deterministic actions:",
                "",
                "| figure | value |",
                "|---|---|",
                *rows,
                "",
                "",
            ]
        )
    made = ""
    if config is not None:
        made = "Made by this command, with the `config.json` here:\n\n```bash\n"
        made += "odac train --config config.json\n```\n\n"
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n"
        f"# {objective} on {env}\n\n"
        f"A goal-reaching policy, trained for {spec['env_steps']:,} environment steps and "
        f"{spec['updates']:,} updates with `rllib_odac`.\n\n{figures}{made}"
        f"```bash\nodac pull {target} --out pulled\nodac evaluate pulled\n```\n\n"
        "```python\nfrom rllib_odac import load_policy\n\n"
        'action = load_policy("pulled")(observation)\n```\n'
    )


def _unit(figure: str) -> str:
    return "" if FIGURES[figure].unit == "1" else f" {FIGURES[figure].unit}"


def _fetched(source: str, name: str, directory: Path) -> bytes:
    """A file of a repository."""
    if source.startswith(HUB):
        from huggingface_hub import hf_hub_download

        with _explained(source):
            path = hf_hub_download(source.removeprefix(HUB), name, local_dir=directory)
        return Path(path).read_bytes()
    try:
        with (Storage.of(source) / name).open() as file:
            content: bytes = file.readall()
            return content
    except OSError:
        raise ValueError(
            f"source is '{source}', which holds no pushed policy: '{name}' is missing."
        ) from None


@contextlib.contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Says in one sentence what the hub refused."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"'{repository}' cannot be reached: {reason}.") from error


def _check_packages(repository: str) -> None:
    wanted = ["safetensors", *(["huggingface_hub"] if repository.startswith(HUB) else [])]
    for package in wanted:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"'{repository}' needs the package '{package}': pip install \"rllib-odac[hub]\"."
            )

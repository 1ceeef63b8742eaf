"""`odac export`, `odac push` and `odac pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rllib_odac.cli.common import Debug, errors_in_one_sentence, quiet_warnings


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or a run directory.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    style: Annotated[
        str, typer.Option("--format", help="onnx, torchscript or torch-export.")
    ] = "onnx",
    debug: Debug = False,
) -> None:
    """Write a checkpoint's policy, with normalisation and action bounds, as one checked file."""
    with errors_in_one_sentence(debug), quiet_warnings(debug):
        from rllib_odac.deploy import export_policy
        from rllib_odac.deploy.export import CHECKED_STATES

        difference = export_policy(checkpoint, out, style)
        print(f"{out}  ({CHECKED_STATES} states, largest difference {difference:.1e})")


def push(
    checkpoint: Annotated[str, typer.Argument(help="A run, or a checkpoint.")],
    repository: Annotated[str, typer.Argument(help="hf://OWNER/NAME, or a directory or URI.")],
    debug: Debug = False,
) -> None:
    """Publish a policy with its model card on a hub, or in a directory.

    The hub is Hugging Face's, or the one that the variable HF_ENDPOINT names; `hf auth login`, or
    the variable HF_TOKEN, says who you are.
    """
    with errors_in_one_sentence(debug), quiet_warnings(debug):
        from rllib_odac.experiments.share import push as push_policy

        print(push_policy(checkpoint, repository))


def pull(
    repository: Annotated[str, typer.Argument(help="hf://OWNER/NAME, or a directory or URI.")],
    out: Annotated[str, typer.Option(help="The checkpoint to write, a directory or its URI.")],
    debug: Debug = False,
) -> None:
    """Fetch a policy that `odac push` published, to load or evaluate it; nothing is unpickled."""
    with errors_in_one_sentence(debug), quiet_warnings(debug):
        from rllib_odac.experiments.share import pull as pull_policy

        print(pull_policy(repository, out))

"""`odac export`."""

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

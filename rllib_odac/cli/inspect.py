"""`odac inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rllib_odac.cli.common import Debug, Trust, errors_in_one_sentence, quiet_libraries


def inspect(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint, or a run: its newest one.")],
    out: Annotated[Path, typer.Option(help="Directory for the pictures and report.html.")],
    episodes: Annotated[int, typer.Option(help="Episodes, each with a held-out goal.")] = 50,
    seed: Annotated[int, typer.Option(help="Which held-out goals.")] = 0,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Draw what a checkpoint inferred: reward, discount, value and model.

    Pictures and one page with all of them: fields over the plane, episodes, termination times, the
    model's calibration, and values against what came about.
    """
    with errors_in_one_sentence(debug), quiet_libraries(debug):
        from rllib_odac.evaluation.inspect import inspect_checkpoint

        result = inspect_checkpoint(checkpoint, out, episodes, seed, trust)
        if as_json:
            print(json.dumps(result))
            return
        for sentence in result["missing"]:
            print(f"note: {sentence}")
        for file in result["files"]:
            print(file)

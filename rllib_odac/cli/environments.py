"""`odac envs` and `odac render`."""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from rllib_odac.cli.common import (
    Debug,
    errors_in_one_sentence,
    file_name,
    parse_settings,
    quiet_warnings,
)


def envs(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
    debug: Debug = False,
) -> None:
    """List the goal environments: what has to be where, how exactly, in how many steps."""
    with errors_in_one_sentence(debug):
        from rllib_odac.envs.catalogue import describe_envs

        rows = describe_envs()
        if as_json:
            print(json.dumps(rows, indent=2))
        else:
            _print_envs(rows)


def render(
    env: Annotated[str, typer.Argument(help="Environment id; `odac envs` lists them.")],
    out: Annotated[Path, typer.Option(help="Directory for the two files.")] = Path("runs/render"),
    episodes: Annotated[int, typer.Option(help="Episodes in the video.")] = 1,
    steps: Annotated[int, typer.Option(help="Where to stop an episode that goes on.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of starts, goals and actions.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An argument of the environment, key=value.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Film random actions in an environment: a video and a picture strip."""
    with errors_in_one_sentence(debug):
        from rllib_odac.envs import make_env
        from rllib_odac.evaluation.video import film_random, picture_strip, record_video

        least_values = {"episodes": (episodes, 1), "steps": (steps, 1), "seed": (seed, 0)}
        for name, (value, least) in least_values.items():
            if value < least:
                raise ValueError(f"{name} is {value}, but must be at least {least}.")
        arguments = parse_settings(settings or [])
        if "render_mode" in arguments:
            raise ValueError("render_mode is no argument to set: pictures need 'rgb_array'.")
        with quiet_warnings(debug):
            made = make_env(env, render_mode="rgb_array", **arguments)
            try:
                films = [film_random(made, steps, seed + i) for i in range(episodes)]
            finally:
                made.close()  # type: ignore[no-untyped-call]
        target = out / file_name(env)
        fps = made.metadata.get("render_fps", 25)
        print(picture_strip(target.with_name(f"{target.name}.png"), films[0]))
        print(record_video(target.with_name(f"{target.name}.mp4"), chain(*films), fps))


def _print_envs(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("environment", overflow="fold")  # an id must be whole
    for column in ("goal", "success within", "steps", "installed"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["id"],
            f"{row['goal_dim']}: {row['goal']}",
            row["success"],
            str(row["horizon"]),
            row["install"] or "yes",
        )
    # Lines fit a terminal's width, but a file has none.
    width = None if sys.stdout.isatty() else 200
    Console(width=width, markup=False, highlight=False).print(table)

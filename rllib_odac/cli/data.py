"""`odac data` and `odac record`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rllib_odac.cli.common import (
    Debug,
    errors_in_one_sentence,
    parse_settings,
    quiet_warnings,
)


def data(
    path: Annotated[str, typer.Argument(help="File, folder, checkpoint or their URI.")],
    goal: Annotated[
        list[int] | None,
        typer.Option(help="Coordinate of the observation in the goal, if the log names none."),
    ] = None,
    env: Annotated[str | None, typer.Option(help="Environment that the log is to fit.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG of the achieved goals.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Describe logged episodes: how many, how wide, in which ranges."""
    with errors_in_one_sentence(debug), quiet_warnings(debug):
        from rllib_odac.config import ODACConfig
        from rllib_odac.data.describe import describe

        success_distance = None
        if env is not None:
            config = ODACConfig().environment(env).training(data=path, data_goal=goal)
            config.check_environment()
            success_distance = config.goals.success_distance
        found = describe(path, goal, success_distance, picture)
        if as_json:
            print(json.dumps(found))
            return
        print(
            f"{found['episodes']} episodes of {found['shortest']} to {found['longest']} steps, "
            f"{found['steps']} steps in all"
        )
        for name, (low, high) in found["ranges"].items():
            width = found["widths"]["desired_goal" if name == "achieved_goal" else name]
            print(f"{name:14} {width:4} numbers in [{low:.4g}, {high:.4g}]")
        print(f"half of the episodes end at least {found['moved']:.4g} from where they began")
        print(f"{found['terminated_share']:.0%} end in a terminal state")
        if success_distance is not None:
            print(f"{found['reached_share']:.0%} end within {success_distance:g} of their goal")
        if picture is not None:
            print(picture)


def record(
    env: Annotated[str, typer.Argument(help="Environment id; `odac envs` lists them.")],
    out: Annotated[str, typer.Option(help="New folder, or its URI.")],
    steps: Annotated[int, typer.Option(help="Steps, at least; episodes are whole.")] = 10_000,
    policy: Annotated[
        str | None,
        typer.Option(help=r"Checkpoint, run or exported policy \[random actions]."),
    ] = None,
    random_share: Annotated[float, typer.Option(help="Share of random actions besides.")] = 0.0,
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw the policy's actions instead of its mean.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of resets and random actions.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An argument of the environment, key=value.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Record episodes as data to train from."""
    with errors_in_one_sentence(debug), quiet_warnings(debug):
        from rich.progress import Progress

        from rllib_odac.data.record import record as record_episodes
        from rllib_odac.deploy import load_policy
        from rllib_odac.envs import make_env

        if sample and policy is None:
            raise ValueError("sample is True, but policy is None: random actions are drawn anyway.")
        acts: Any = None
        if policy is not None:
            acts = load_policy(policy, sample=sample, seed=seed if sample else None)
        made = make_env(env, **parse_settings(settings or []))
        with Progress(transient=True) as progress:
            task = progress.add_task("steps", total=steps)
            summary = record_episodes(
                made,
                steps,
                out,
                policy=acts,
                random_share=random_share,
                seed=seed,
                on_step=lambda done: progress.update(task, completed=done),
            )
        made.close()  # type: ignore[no-untyped-call]
        print(
            f"{summary['episodes']} episodes, {summary['steps']} steps, "
            f"success {summary['success_rate']:.0%}"
        )
        print(out)

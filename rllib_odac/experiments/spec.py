"""`RunSpec`: everything that decides the result of a training run, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllib_odac.settings import shown

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig

STEPS_PAST_THE_END = 100  # a run ends at most so many environment steps past its budget


@dataclass
class RunSpec:
    """What a run is: everything that decides its result.

    Attributes:
        env: Environment id.
        objective: Name of the objective.
        steps: Environment steps to train for.
        seed: Seed of networks, exploration, replay and environments.
        settings: Further fields of `ODACConfig`, by name.
        num_env_runners: Remote env runners; 0 collects in the driver's process.
        num_learners: Remote learners; 0 learns in the driver's process.
        stop_success: Stop early once this success rate is reached in an evaluation.
        evaluate_every: Environment steps between two evaluations, each a row of progress.
        evaluation_episodes: Episodes of each evaluation but the last.
        final_episodes: Episodes of the last evaluation.
        checkpoint_every: Environment steps between two checkpoints; by default 1000, or a
            fiftieth of `steps` if that is more.
    """

    env: str
    objective: str = "odac"
    steps: int = 100_000
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    num_env_runners: int = 0
    num_learners: int = 0
    stop_success: float | None = None
    evaluate_every: int = 1000
    evaluation_episodes: int = 20
    final_episodes: int = 100
    checkpoint_every: int | None = None

    @property
    def checkpoint_interval(self) -> int:
        """Environment steps between two checkpoints."""
        if self.checkpoint_every is None:
            return max(1000, self.steps // 50)
        return self.checkpoint_every

    def config(self) -> ODACConfig:
        """The validated configuration of this run.

        Raises:
            ValueError: With one sentence on the first setting that is wrong.
        """
        from rllib_odac.config import ODACConfig

        if not isinstance(self.env, str):
            raise ValueError(f"env is {self.env!r}, but must be the id of an environment.")
        least = {
            **dict.fromkeys(
                ("steps", "evaluate_every", "evaluation_episodes", "final_episodes"), 1
            ),
            **dict.fromkeys(("seed", "num_env_runners", "num_learners"), 0),
            **({} if self.checkpoint_every is None else {"checkpoint_every": 1}),
        }
        for name, number in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name} is {shown(value)}, but must be a whole number.")
            if value < number:
                raise ValueError(f"{name} is {value}, but must be at least {number}.")
        stop = self.stop_success
        if stop is not None and not (isinstance(stop, int | float) and 0 < stop <= 1):
            raise ValueError(f"stop_success is {shown(stop)}, but must be in (0, 1].")
        config: ODACConfig = (
            ODACConfig()
            .environment(self.env)
            .training(objective=self.objective)
            .env_runners(num_env_runners=self.num_env_runners)
            .learners(num_learners=self.num_learners)
            .evaluation(evaluation_duration=self.evaluation_episodes)
            .reporting(min_sample_timesteps_per_iteration=self.evaluate_every)
            .debugging(seed=self.seed, log_level="ERROR")
        )
        if "objective" in self.settings:
            raise ValueError(
                f"settings has objective {self.settings['objective']!r}, but must leave it to the "
                "run's own objective."
            )
        config.apply_settings(self.settings)
        config.check_settings()
        environments = config.num_envs_per_env_runner
        if environments > STEPS_PAST_THE_END:
            raise ValueError(
                f"num_envs_per_env_runner is {environments}, but must be at most "
                f"{STEPS_PAST_THE_END}, so that a run ends within so many steps of its budget."
            )
        fragment = min(config.rollout_fragment_length, STEPS_PAST_THE_END // environments)
        config.env_runners(rollout_fragment_length=fragment)
        config.validate()
        return config


def read_spec(path: Path) -> dict[str, Any]:
    """Fields of a `RunSpec` in a JSON file, such as a run's own config.json.

    Raises:
        ValueError: If the file cannot be read, or names a field that there is not.
    """
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"config is '{path}', which cannot be read: {error}.") from None
    known = [field.name for field in fields(RunSpec)]
    if not isinstance(stored, dict) or not isinstance(stored.get("settings", {}), dict):
        raise ValueError(
            f"config is '{path}', but must hold an object with some of {known}, 'settings' being "
            "an object too."
        )
    for name in stored:
        if name not in known:
            raise ValueError(f"config '{path}' has the field '{name}', but must use {known}.")
    return stored

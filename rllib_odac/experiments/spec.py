"""`RunSpec`: everything that decides the result of a training run, and its file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass
from typing import TYPE_CHECKING, Any

from rllib_odac.declarations import (
    COUNT,
    COUNT_FROM_0,
    MAPPING,
    POSITIVE_SHARE,
    SEED,
    TEXT,
    Rule,
    declarations,
    lists_its_settings,
    setting,
)
from rllib_odac.settings import NAMED_OBJECTIVE
from rllib_odac.storage import PLACE, Storage

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig

STEPS_PAST_THE_END = 100  # a run ends at most so many environment steps past its budget
ENV_ID = Rule(lambda v: isinstance(v, str), "the id of an environment")


@lists_its_settings
@dataclass
class RunSpec:
    """What a run is: everything that decides its result."""

    env: str | None = setting(
        MISSING, ENV_ID.or_none(), "environment, of those that `odac envs` lists"
    )
    objective: str = setting("odac", NAMED_OBJECTIVE, "method to train with")
    steps: int = setting(
        100_000, COUNT, "environment steps to train for, or updates from a log alone", "steps"
    )
    seed: int = setting(0, SEED, "seed of networks, exploration, replay and environments")
    settings: dict[str, Any] = setting({}, MAPPING, "further settings of `ODACConfig`, by name")
    begin_from: str | None = setting(
        None, TEXT.or_none(), "checkpoint, or run, whose networks the run begins with"
    )
    num_env_runners: int = setting(
        0, COUNT_FROM_0, "remote env runners; 0 collects in this process"
    )
    num_learners: int = setting(0, COUNT_FROM_0, "remote learners; 0 learns in this process")
    stop_success: float | None = setting(
        None, POSITIVE_SHARE.or_none(), "stop once an evaluation succeeds this often"
    )
    evaluate_every: int = setting(1000, COUNT, "steps between two evaluations", "steps")
    evaluation_episodes: int = setting(20, COUNT, "episodes of each evaluation but the last")
    final_episodes: int = setting(100, COUNT, "episodes of the last evaluation")
    checkpoint_every: int | None = setting(
        None, COUNT.or_none(), "steps between checkpoints, else 1000, or steps/50 if more", "steps"
    )

    @property
    def checkpoint_interval(self) -> int:
        """Environment steps between two checkpoints, unless episodes are long."""
        if self.checkpoint_every is None:
            return max(1000, self.steps // 50)
        return self.checkpoint_every

    def changed_fields(self) -> dict[str, Any]:
        """The fields that differ from their defaults, so that a new field changes no old digest."""
        declared, given = declarations(RunSpec), asdict(self)
        return {name: value for name, value in given.items() if value != declared[name].default}

    def config(self) -> ODACConfig:
        """The validated configuration of this run.

        Raises:
            ValueError: With one sentence on the first setting that is wrong.
        """
        from ray.rllib.algorithms.algorithm_config import NotProvided

        from rllib_odac.config import ODACConfig

        declared = declarations(RunSpec)
        for name, declaration in declared.items():
            declaration.check(name, getattr(self, name))
        for name in declared.keys() & self.settings.keys():
            raise ValueError(
                f"settings has {name} {self.settings[name]!r}, but must leave it to the run's own "
                f"{name}."
            )
        config: ODACConfig = (
            ODACConfig()
            .environment(self.env if self.env is not None else NotProvided)
            .training(objective=self.objective)
            .env_runners(num_env_runners=self.num_env_runners)
            .learners(num_learners=self.num_learners)
            .evaluation(
                evaluation_duration=self.evaluation_episodes,
                # Where others collect, another one evaluates beside them.
                evaluation_num_env_runners=1 if self.num_env_runners else 0,
            )
            .reporting(min_sample_timesteps_per_iteration=self.evaluate_every)
            .debugging(seed=self.seed, log_level="ERROR")
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
        whole = config.steps_to_whole_episodes
        if self.checkpoint_every is not None and self.checkpoint_every < whole:
            raise ValueError(
                f"checkpoint_every is {self.checkpoint_every}, but must be at least {whole}: a "
                f"checkpoint drops episodes that go on, and none of {environments} environments "
                "would ever end one."
            )
        return config

    def checkpoint_interval_with(self, config: ODACConfig) -> int:
        """Environment steps between two checkpoints, so many by default that few are dropped."""
        if self.checkpoint_every is not None:
            return self.checkpoint_every
        return max(self.checkpoint_interval, 2 * config.steps_to_whole_episodes)


def read_spec(path: PLACE | Storage) -> dict[str, Any]:
    """Fields of a `RunSpec` in a JSON file, such as a run's own config.json.

    Raises:
        ValueError: If the file cannot be read, or names a field that there is not.
    """
    try:
        with Storage.of(path).open() as file:
            stored = json.loads(file.readall())
    except (OSError, ValueError) as error:
        raise ValueError(f"config is '{path}', which cannot be read: {error}.") from None
    return check_fields(f"config '{path}'", stored, declarations(RunSpec))


def check_fields(where: str, given: Any, allowed: Iterable[str]) -> dict[str, Any]:
    """Fields of a `RunSpec` as JSON would give them back, so that equal runs compare equal.

    Args:
        where: What gives them, for the message.
        given: The fields.
        allowed: Their names.

    Raises:
        ValueError: If there is another field, or JSON cannot hold one.
    """
    MAPPING.check(f"{where}: settings", check_mapping(where, given, allowed).get("settings", {}))
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(given)))
    except TypeError as error:
        raise ValueError(f"{where} must be such as JSON can hold: {error}.") from None
    return plain


def check_same(wanted: Mapping[str, Any], stored: Mapping[str, Any], where: str, cure: str) -> None:
    """Checks that what is asked for is what was begun.

    Args:
        wanted: Values by name.
        stored: The values in a JSON file.
        where: What the file belongs to, for the message.
        cure: What to do if they differ, for the message.

    Raises:
        ValueError: With the first name whose values differ.
    """
    for name, value in json.loads(json.dumps(wanted)).items():
        if stored[name] != value:
            raise ValueError(f"{name} is {value!r}, but {where} has {stored[name]!r}; {cure}.")


def check_mapping(where: str, given: Any, allowed: Iterable[str]) -> Mapping[str, Any]:
    """Returns a mapping whose keys are all allowed.

    Raises:
        ValueError: If it is something else.
    """
    keys = list(allowed)
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}, but must be a mapping with some of {keys}.")
    for name in given:
        if name not in keys:
            raise ValueError(f"{where} has the key {name!r}, but must use {keys}.")
    return given

"""What a sweep searches: a base run, a search space, a stop rule and a pass threshold.

A YAML file says so:

    base: ../fetch_reach.json    # a run's settings, beside this file, or fields of RunSpec
    space:
      lr: {log_uniform: [3.0e-4, 3.0e-3]}
    metric: final_distance
    stop:
      steps: 6000
      grace: 1500                # steps before which a scheduler ends no trial
      success_rate: 0.99         # ends a trial that has reached it, if given
    pass: {success_rate: 0.9}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from rllib_odac.agent.objectives import objective_class
from rllib_odac.experiments.run import FIGURES, RunSpec, read_spec
from rllib_odac.experiments.sweeps.space import Domain, read_space

MODES = {"success_rate": "max", "final_distance": "min", "normalized_distance": "min"}
KEYS = ("base", "space", "metric", "stop", "pass")
STOP_KEYS = {"steps": "steps", "success_rate": "stop_success"}  # and the fields of RunSpec
GRACE = 9  # by default a scheduler looks first after this part of the steps


@dataclass(frozen=True)
class SweepStudy:
    """What is searched.

    Attributes:
        base: The run that trials vary.
        space: By name of the setting, the values it may take.
        metric: The figure that is optimised, one of `FIGURES`.
        threshold: Success rate from which on a trial passes.
        grace: Environment steps before which a scheduler ends no trial; by default an evaluation
            or a ninth of the steps.
    """

    base: RunSpec
    space: Mapping[str, Domain]
    metric: str = "final_distance"
    threshold: float = 0.9
    grace: int | None = None

    def __post_init__(self) -> None:
        if self.metric not in FIGURES:
            raise ValueError(f"metric is {self.metric!r}, but must be one of {list(FIGURES)}.")
        if not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 1:
            raise ValueError(f"pass has success_rate {self.threshold!r}, but must be in (0, 1].")
        if self.grace is not None and (not isinstance(self.grace, int) or self.grace < 1):
            raise ValueError(f"grace is {self.grace!r}, but must be a whole number of at least 1.")

    @property
    def mode(self) -> str:
        """Whether the metric is best at its "max" or its "min"."""
        return MODES[self.metric]

    @property
    def grace_steps(self) -> int:
        """Environment steps before which a scheduler ends no trial."""
        steps = self.base.steps
        grace = self.grace or max(self.base.evaluate_every, steps // GRACE)
        return min(grace, steps)

    def of_objective(self) -> SweepStudy:
        """The same without the settings of p_ψ, if the objective does not learn it."""
        if objective_class(self.base.objective).uses_dynamics:
            return self
        kept = {name: d for name, d in self.space.items() if not name.startswith("dynamics_")}
        return replace(self, space=kept)

    def spec(self, configuration: Mapping[str, Any], seed: int = 0) -> RunSpec:
        """The run of a configuration, a value for each name of the space."""
        return replace(self.base, settings={**self.base.settings, **configuration}, seed=seed)

    def defaults(self) -> dict[str, Any]:
        """The base's own value of each hyper-parameter."""
        from rllib_odac.config import ODACConfig

        config = ODACConfig().apply_settings(self.base.settings)
        return {name: getattr(config, name) for name in self.space}

    def described(self) -> dict[str, Any]:
        """Everything that decides what trials do, for JSON."""
        return {
            "base": asdict(self.base),
            "space": {name: {d.kind: list(d.values)} for name, d in self.space.items()},
            "metric": self.metric,
            "grace": self.grace_steps,
            "pass": {"success_rate": self.threshold},
        }


def read_study(path: Path, base: Mapping[str, Any] | None = None) -> SweepStudy:
    """A study from its YAML file.

    Args:
        path: The file.
        base: Fields of `RunSpec` that come before the file's.

    Raises:
        ValueError: With one sentence on the first thing that is wrong.
    """
    try:
        told = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"study is '{path}', which cannot be read: {reason}.") from None
    if not isinstance(told, Mapping) or not set(told) <= set(KEYS):
        raise ValueError(f"study '{path}' must be a mapping with some of {list(KEYS)}.")
    merged = _base_fields(path, told.get("base", {}))
    stop = _mapping("stop", told.get("stop", {}), [*STOP_KEYS, "grace"])
    merged |= {field: stop[name] for name, field in STOP_KEYS.items() if name in stop}
    merged |= base or {}
    if "env" not in merged:
        raise ValueError(f"study '{path}' names no env in its base: give --env.")
    threshold = _mapping("pass", told.get("pass", {}), ("success_rate",))
    return SweepStudy(
        base=RunSpec(**merged),
        space=read_space(told.get("space")),
        metric=told.get("metric", SweepStudy.metric),
        threshold=threshold.get("success_rate", SweepStudy.threshold),
        grace=stop.get("grace"),
    ).of_objective()


def _base_fields(path: Path, told: Any) -> dict[str, Any]:
    if isinstance(told, str):
        return read_spec(path.parent / told)
    return dict(_mapping("base", told, [field.name for field in fields(RunSpec)]))


def _mapping(name: str, told: Any, allowed: Any) -> Mapping[str, Any]:
    if not isinstance(told, Mapping) or not set(told) <= set(allowed):
        raise ValueError(f"{name} is {told!r}, but must be a mapping with some of {list(allowed)}.")
    return told

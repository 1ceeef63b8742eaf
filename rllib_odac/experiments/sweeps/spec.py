"""`SweepSpec`: a base run, a search space, a stop rule and a pass threshold, and their file.

base: fetch_reach.json    # a run's settings, beside this file or tuned ones, or fields of RunSpec
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rllib_odac.declarations import COUNT, POSITIVE_SHARE, one_of
from rllib_odac.experiments.spec import RunSpec, check_mapping
from rllib_odac.experiments.spec_files import read_yaml, run_fields
from rllib_odac.experiments.sweeps.space import Domain, read_space
from rllib_odac.metrics import FIGURES

STOP_FIELDS = {"steps": "steps", "success_rate": "stop_success"}  # fields of RunSpec
GRACE_SHARE = 9  # by default a scheduler may end trials after this part of the steps


@dataclass(frozen=True)
class SweepSpec:
    """What is searched.

    Attributes:
        base: The run that trials vary.
        space: By name of the setting, the values it may take.
        metric: The figure that is optimised, one of `FIGURES`.
        threshold: Success rate from which on a trial passes, in (0, 1].
        grace: Environment steps before which a scheduler ends no trial; by default an evaluation
            or a ninth of the steps.
    """

    base: RunSpec
    space: Mapping[str, Domain]
    metric: str = "final_distance"
    threshold: float = 0.9
    grace: int | None = None

    def __post_init__(self) -> None:
        one_of(*FIGURES).check("metric", self.metric)
        POSITIVE_SHARE.check("success_rate to pass", self.threshold)
        COUNT.or_none().check("grace", self.grace)

    @property
    def mode(self) -> str:
        """Whether the metric is best at its "max" or its "min"; distances are at their "min"."""
        return "max" if self.metric == "success_rate" else "min"

    @property
    def grace_steps(self) -> int:
        """Environment steps before which a scheduler ends no trial."""
        steps = self.base.steps
        return min(self.grace or max(self.base.evaluate_every, steps // GRACE_SHARE), steps)

    def run_spec(self, configuration: Mapping[str, Any], seed: int = 0) -> RunSpec:
        """The run of a configuration, a value for each name of the space."""
        return replace(self.base, settings={**self.base.settings, **configuration}, seed=seed)

    def defaults(self) -> dict[str, Any]:
        """The base's own value of each hyper-parameter."""
        from rllib_odac.config import ODACConfig

        config = ODACConfig().apply_settings(self.base.settings)
        return {name: getattr(config, name) for name in self.space}

    def to_json(self) -> dict[str, Any]:
        """Everything that decides what trials do."""
        return {
            "base": asdict(self.base),
            "space": {name: {d.kind: list(d.values)} for name, d in self.space.items()},
            "metric": self.metric,
            "grace": self.grace_steps,
            "pass": {"success_rate": self.threshold},
        }


def read_sweep_spec(path: Path, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """What a YAML file says is searched.

    Where the objective learns no density p_ψ, the space has none of its settings.

    Args:
        path: The file.
        overrides: Fields of `RunSpec` that replace the file's.

    Raises:
        ValueError: With one sentence on the first thing that is wrong.
    """
    from rllib_odac.agent.objectives import objective_class  # and PyTorch

    stored = read_yaml(path, ("base", "space", "metric", "stop", "pass"))
    fields = run_fields("base", stored.get("base", {}), path.parent)
    stop = check_mapping("stop", stored.get("stop", {}), (*STOP_FIELDS, "grace"))
    fields |= {field: stop[name] for name, field in STOP_FIELDS.items() if name in stop}
    fields |= overrides or {}
    if "env" not in fields:
        raise ValueError(f"study '{path}' names no env in its base: give --env.")
    threshold = check_mapping("pass", stored.get("pass", {}), ("success_rate",))
    base, space = RunSpec(**fields), read_space(stored.get("space"))
    if not objective_class(base.objective).uses_dynamics:
        space = {name: d for name, d in space.items() if not name.startswith("dynamics_")}
    return SweepSpec(
        base=base,
        space=space,
        metric=stored.get("metric", SweepSpec.metric),
        threshold=threshold.get("success_rate", SweepSpec.threshold),
        grace=stop.get("grace"),
    )

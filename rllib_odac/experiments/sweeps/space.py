"""Search spaces: for each hyper-parameter a domain, as study files write it.

lr: {log_uniform: [3.0e-4, 3.0e-3]}
prior_discount: {uniform: [0.9, 0.99]}
random_action_steps: {integer: [1, 10]}      # both ends included
hidden: {choice: [[256, 256], [512, 512]]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rllib_odac.declarations import declarations, is_int, is_number
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.settings import SETTINGS

if TYPE_CHECKING:
    import numpy as np

KINDS = ("uniform", "log_uniform", "integer", "choice")
DIGITS = 4  # significant ones of drawn numbers: more would only be hard to read

# What a trial may take over in mid-run, with the networks of another: the rest is built into
# networks, replay or the count of updates owed.
MUTABLE = [name for name, declared in SETTINGS.items() if declared.mutable]


@dataclass(frozen=True)
class Domain:
    """Values that a hyper-parameter may take.

    Attributes:
        kind: One of `KINDS`.
        values: Lower and upper end, or the values to choose from.
    """

    kind: str
    values: tuple[Any, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether values have an order to plot them by."""
        return all(is_number(value) for value in self.values)

    def draw(self, rng: np.random.Generator) -> Any:
        """A random value."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "integer":
            return int(rng.integers(low, high + 1))
        if self.kind == "log_uniform":
            return rounded(math.exp(rng.uniform(math.log(low), math.log(high))))
        return rounded(rng.uniform(low, high))

    def clipped(self, value: Any) -> Any:
        """The value, or the end of the interval that it lies beyond."""
        if self.kind == "choice":
            return value
        low, high = self.values
        kept = min(max(value, low), high)
        return int(kept) if self.kind == "integer" else rounded(kept)

    def to_tune(self) -> Any:
        """The same as one of Ray Tune's domains."""
        from ray import tune

        if self.kind == "choice":
            return tune.choice(list(self.values))
        low, high = self.values
        if self.kind == "integer":
            return tune.randint(low, high + 1)
        return tune.loguniform(low, high) if self.kind == "log_uniform" else tune.uniform(low, high)


def initial(value: Any) -> Any:
    """What a schedule [[step, value], ...] begins with; any other value itself."""
    is_schedule = isinstance(value, list | tuple) and isinstance(value[0], list | tuple)
    return value[0][1] if is_schedule else value


def rounded(value: float) -> float:
    """A number with `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def read_space(space: Any) -> dict[str, Domain]:
    """The search space of a study file.

    Raises:
        ValueError: With one sentence on the first hyper-parameter that is wrong.
    """
    if not isinstance(space, Mapping) or not space:
        raise ValueError(
            f"space is {space!r}, but must name at least one setting of ODACConfig, such as "
            "{'lr': {'log_uniform': [0.0003, 0.003]}}."
        )
    return {name: _read_domain(str(name), domain) for name, domain in space.items()}


def _read_domain(name: str, domain: Any) -> Domain:
    if name not in SETTINGS or name in declarations(RunSpec):
        raise ValueError(f"space has '{name}', which is no setting of ODACConfig to search over.")
    if not isinstance(domain, Mapping) or len(domain) != 1 or next(iter(domain)) not in KINDS:
        raise ValueError(
            f"space['{name}'] is {domain!r}, but must have one of {list(KINDS)}, such as "
            "{'uniform': [0.1, 0.9]}."
        )
    [(kind, values)] = domain.items()
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"space['{name}'] has {kind} {values!r}, but must have a list.")
    if kind != "choice":
        _check_interval(name, kind, values)
    elif len({repr(value) for value in values}) < len(values):
        raise ValueError(f"space['{name}'] has choice {values!r}, but must have different values.")
    rule = SETTINGS[name].rule
    for value in values:
        if not rule.allows(value):
            raise ValueError(f"space['{name}'] has {value!r}, but {name} must be {rule.words}.")
    return Domain(kind, tuple(values))


def _check_interval(name: str, kind: str, ends: Sequence[Any]) -> None:
    is_kind = is_int if kind == "integer" else is_number
    if len(ends) != 2 or not all(map(is_kind, ends)) or not ends[0] < ends[1]:
        hint = (
            "; YAML reads 3e-4 as a string, write 3.0e-4"
            if any(isinstance(end, str) for end in ends)
            else ""
        )
        numbers = "whole numbers" if kind == "integer" else "numbers"
        raise ValueError(
            f"space['{name}'] has {kind} {list(ends)!r}, but must have two {numbers}, the lower "
            f"first{hint}."
        )
    if kind == "log_uniform" and ends[0] <= 0:
        raise ValueError(f"space['{name}'] has log_uniform {list(ends)!r}, but must be positive.")

"""`Actions`: how rows of numbers, as replays hold them, stand for an environment's actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Finite: TypeAlias = Discrete[Any] | MultiDiscrete | MultiBinary

MAX_CHOICES = 1024  # combinations of several choices counted: critics have an output for each
MAX_RANGE = 1e6  # of a coordinate: whoever gives a larger one means that there are no bounds
TOLERANCE = 1e-3  # of a coordinate's range, by which rounding in a log may exceed its bounds


class Actions(ABC):
    """Actions of an environment as rows of A numbers.

    Attributes:
        width: A.
        choices: (n, ...) the environment's actions where there are finitely many, each of which is
            a one-hot row of A = n; None where a row is a point of [−1, 1]^A.
        env_shape: Shape of one of the environment's actions.
        low: (W,) lower bounds of the environment's actions, flattened.
        high: (W,) upper bounds.
    """

    width: int
    low: Array
    high: Array
    choices: Array | None = None
    env_shape: tuple[int, ...]

    @abstractmethod
    def to_env(self, actions: Array) -> Array:
        """The environment's actions (N, ...) that rows (N, A) stand for."""

    @abstractmethod
    def from_env(self, actions: Array) -> Array:
        """Rows (N, A) float32 of the environment's actions (N, ...).

        Raises:
            ValueError: If one is none of the environment's; the sentence goes on after a name.
        """

    @abstractmethod
    def uniform(self, rng: np.random.Generator, count: int) -> Array:
        """Uniformly random rows (N, A)."""

    @property
    def env_width(self) -> int:
        """Numbers in one of the environment's actions."""
        return int(np.prod(self.env_shape))


class BoxActions(Actions):
    """A bounded box, its range scaled to [−1, 1]; whole numbers are rounded to."""

    def __init__(self, space: Box) -> None:
        self.env_shape, self.dtype = space.shape, space.dtype
        self.low, self.high = space.low.ravel(), space.high.ravel()
        if self.is_whole:
            self.low, self.high = self.low.astype(np.float64), self.high.astype(np.float64)
        self.range = self.high - self.low
        self.width = len(self.low)
        self._is_unit = bool((self.low == -1).all() and (self.high == 1).all())

    @property
    def is_whole(self) -> bool:
        """Whether the environment takes whole numbers."""
        return bool(np.issubdtype(self.dtype, np.integer))

    def to_env(self, actions: Array) -> Array:
        if self._is_unit and not self.is_whole:
            scaled = actions.copy()  # an environment may write on them
        else:
            scaled = self.low + (actions + 1) / 2 * self.range
            scaled = np.clip(scaled, self.low, self.high)  # rounding may exceed them
        if self.is_whole:
            scaled = np.rint(scaled).astype(self.dtype)
        return scaled.reshape(len(actions), *self.env_shape)

    def from_env(self, actions: Array) -> Array:
        actions = np.reshape(actions, (len(actions), -1))
        unit = 2 * (actions - self.low) / np.where(self.range > 0, self.range, 1) - 1
        unit = np.where(self.range > 0, unit, actions - self.low)  # one that is fixed is 0
        excess = np.abs(unit)
        if excess.max() > 1 + 2 * TOLERANCE:
            step, coordinate = np.unravel_index(excess.argmax(), unit.shape)
            low, high = self.low[coordinate], self.high[coordinate]
            raise ValueError(
                f"has {actions[step, coordinate]:g} at step {step}, coordinate {coordinate}, but "
                f"must be in [{low:g}, {high:g}], the environment's bounds."
            )
        return np.asarray(unit.clip(-1, 1), np.float32)

    def uniform(self, rng: np.random.Generator, count: int) -> Array:
        return rng.uniform(-1, 1, size=(count, self.width))


class FiniteActions(Actions):
    """Finitely many actions as one-hot rows, those of several choices by their combinations."""

    def __init__(self, space: Finite) -> None:
        self.choices = _choices(space)
        self.width, *shape = self.choices.shape
        self.env_shape = tuple(shape)
        flat = self.choices.reshape(self.width, -1)
        self.low, self.high = flat.min(0), flat.max(0)
        self._rows = np.eye(self.width, dtype=np.float32)

    def to_env(self, actions: Array) -> Array:
        assert self.choices is not None
        return np.asarray(self.choices[np.argmax(actions, axis=-1)])

    def from_env(self, actions: Array) -> Array:
        assert self.choices is not None
        rows = np.reshape(actions, (len(actions), 1, -1))
        is_choice = (rows == self.choices.reshape(1, self.width, -1)).all(-1)
        if not (known := is_choice.any(-1)).all():
            step = int(np.flatnonzero(~known)[0])
            first, last = self.choices[0].tolist(), self.choices[-1].tolist()
            raise ValueError(
                f"has {np.ravel(actions[step]).tolist()} at step {step}, but must be one of the "
                f"environment's {self.width} actions, from {first} to {last}."
            )
        return np.asarray(is_choice, np.float32)

    def uniform(self, rng: np.random.Generator, count: int) -> Array:
        return np.asarray(self._rows[rng.integers(self.width, size=count)])


def actions_of(space: gym.Space[Any], name: str = "The environment") -> Actions:
    """The actions of a space.

    Args:
        space: A bounded Box, or a Discrete, MultiDiscrete or MultiBinary of at most 1,024
            combinations.
        name: What to call the environment in messages.

    Raises:
        ValueError: If it is another space, or one that is too large.
    """
    if isinstance(space, Discrete | MultiDiscrete | MultiBinary):
        number = _number_of_choices(space)
        if number > MAX_CHOICES:
            raise ValueError(
                f"{name} has {number:,.0f} {type(space).__name__} actions, but ODAC takes at most "
                f"{MAX_CHOICES:,}, for it has a value of each combination."
            )
        return FiniteActions(space)
    if not isinstance(space, Box):
        raise ValueError(
            f"{name} has {type(space).__name__} actions, but ODAC needs a bounded Box, or a "
            "Discrete, MultiDiscrete or MultiBinary space."
        )
    if not np.prod(space.shape):
        raise ValueError(f"{name} has actions of shape {space.shape}: there is nothing to choose.")
    low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
    if (widest := (high - low).max()) > MAX_RANGE:
        raise ValueError(
            f"{name} has an action with a range of {widest:.3g}, but ODAC explores all of it and "
            f"needs at most {MAX_RANGE:,.0f}: gymnasium.wrappers.TransformAction narrows it."
        )
    return BoxActions(space)


def _number_of_choices(space: Finite) -> float:
    return float(np.prod(_sizes(space), dtype=np.float64))


def _choices(space: Finite) -> Array:
    """(n, ...) each action of the space, the last of several choices changing first."""
    sizes = _sizes(space)
    rows = np.stack(np.unravel_index(np.arange(sizes.prod()), sizes), axis=-1)
    rows = rows.reshape(-1, *(space.shape or ())) + np.asarray(getattr(space, "start", 0))
    return np.asarray(rows, space.dtype)


def _sizes(space: Finite) -> Array:
    """(k,) how many values each of the choices has."""
    if isinstance(space, Discrete):
        return np.array([int(space.n)])
    if isinstance(space, MultiBinary):
        return np.full(int(np.prod(space.shape)), 2)
    return np.ravel(space.nvec)

"""What a stored policy says of itself: its spaces and where it comes from, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from numpy.typing import NDArray

VERSION = 1
OBSERVATION, ACHIEVED_GOAL, DESIRED_GOAL = INPUTS = ("observation", "achieved_goal", "desired_goal")
ACTION = "action"


@dataclass(frozen=True)
class BoxSpec:
    """A box of real vectors, as Gymnasium's `Box` without Gymnasium.

    Attributes:
        shape: Of one vector.
        dtype: NumPy's name of its numbers' type.
        low: The flattened lower bounds; None where there is none.
        high: The upper bounds.
    """

    shape: tuple[int, ...]
    dtype: str
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    @property
    def size(self) -> int:
        """How many numbers a vector holds."""
        return math.prod(self.shape)

    @classmethod
    def of(cls, space: Box) -> Self:
        """The specification of a Gymnasium space."""
        return cls.between(space.low, space.high)

    @classmethod
    def between(cls, low: NDArray[Any], high: NDArray[Any]) -> Self:
        """The box of these bounds."""
        bounds = (
            tuple(b if math.isfinite(b) else None for b in bound.ravel().tolist())
            for bound in (low, high)
        )
        return cls(low.shape, str(low.dtype), *bounds)


@dataclass(frozen=True)
class PolicySpec:
    """What a stored policy says of itself.

    Attributes:
        env: The environment that it was trained on.
        objective: The class of the objective that it was trained by.
        env_steps: Environment steps it had been trained for.
        updates: Updates it had been trained for.
        hidden: Widths of its hidden layers.
        spaces: Of `observation`, `achieved_goal`, `desired_goal` and `action`, in the
            environment's units.
        choices: Where there are finitely many actions, each of them, flattened; else None.
    """

    env: str
    objective: str
    env_steps: int
    updates: int
    hidden: tuple[int, ...]
    spaces: dict[str, BoxSpec]
    choices: tuple[tuple[int, ...], ...] | None = None

    def to_json(self) -> str:
        """As a JSON object."""
        return json.dumps({"version": VERSION} | asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: object) -> Self:
        """The specification that `to_json` wrote.

        Args:
            text: The JSON object.
            source: The file it stands in, for messages.

        Raises:
            ValueError: If it is none, or of another version.
        """
        try:
            stored: dict[str, Any] = json.loads(text)
            version = stored.pop("version")
            if version == VERSION:
                spaces = {name: _box(box) for name, box in stored.pop("spaces").items()}
                if set(spaces) != {*INPUTS, ACTION}:
                    raise KeyError("spaces")
                if (choices := stored.pop("choices", None)) is not None:
                    choices = tuple(tuple(action) for action in choices)
                hidden = tuple(stored.pop("hidden"))
                return cls(**stored, hidden=hidden, spaces=spaces, choices=choices)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"'{source}' holds no policy that can be read: {error!r}.") from None
        raise ValueError(
            f"'{source}' holds a policy of version {version}, but only version {VERSION} can be "
            "read."
        )


def _box(stored: dict[str, Any]) -> BoxSpec:
    shape, low, high = (tuple(stored[name]) for name in ("shape", "low", "high"))
    return BoxSpec(shape, stored["dtype"], low, high)

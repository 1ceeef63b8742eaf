"""`Transitions`: a batch of replayed steps, each with the goal that it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Columns = TypeVar("Columns", bound=tuple[Tensor | None, ...])


class Transitions(NamedTuple):
    """B transitions (s, a, s') in the environment's units, and a goal g for each.

    Attributes:
        observation: (B, D) of s.
        next_observation: (B, D) of s'.
        achieved_goal: (B, G) φ(s).
        next_achieved_goal: (B, G) φ(s').
        goal: (B, G) g.
        actions: (B, A) in [−1, 1].
        terminated: (B,) bool, whether s' is a terminal state; None where no replayed state is.
        relabelled: (B,) bool, whether g is another goal than the episode's own.
        auxiliary_goal: (B, G) a further achieved goal of the same episode, where an objective's
            `Auxiliary` asks for one.
        within: (B,) bool, of steps that follow others: whether the episode goes so far.
    """

    observation: Tensor
    next_observation: Tensor
    achieved_goal: Tensor
    next_achieved_goal: Tensor
    goal: Tensor
    actions: Tensor
    terminated: Tensor | None
    relabelled: Tensor
    auxiliary_goal: Tensor | None = None
    within: Tensor | None = None

    def staying(self) -> Transitions:
        """Transitions from each s' to itself, as those of a state that is never left."""
        return self._replace(
            observation=self.next_observation, achieved_goal=self.next_achieved_goal
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Transitions:
        """The same transitions, or others, with every column changed by a function."""
        columns = [None if column is None else function(column) for column in self]
        return type(self)._make(columns)


def split(columns: Columns, size: int) -> list[Columns]:
    """Splits every column of a NamedTuple of tensors into consecutive batches of `size` rows."""
    count = next(len(column) for column in columns if column is not None) // size
    parts = [[None] * count if column is None else torch.split(column, size) for column in columns]
    return [type(columns)(*rows) for rows in zip(*parts, strict=True)]

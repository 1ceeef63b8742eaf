"""`DivergenceGuard`: training stops, or skips the update, where numbers are not finite.

It reads one number an update, the summed loss. A gradient or parameter that goes bad while the loss
is finite makes the next loss bad, and the last update of a call is followed by one look at all
parameters. Where updates are to be skipped, the optimizer is told so by a tensor on its own device,
as for automatic mixed precision, so that the host does not wait for a GPU.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from rllib_odac.agent.batch import Batch
from rllib_odac.agent.update import Update

logger = logging.getLogger(__name__)


class Watched(NamedTuple):
    """An update whose summed loss is still to be looked at."""

    number: int  # of the update, counted from 1
    update: Update
    batch: Batch
    total: Tensor  # loss


class DivergenceGuard:
    """Stops training at an update that is not finite, or lets it be skipped.

    Args:
        module: Whose parameters are trained.
        skips: Whether such updates are skipped, by all learners together, and counted.
        reads_at_once: Whether the loss is read in its own update, which makes a GPU's host wait;
            else the losses of some updates are read together, by `read`.
    """

    def __init__(self, module: nn.Module, skips: bool, reads_at_once: bool) -> None:
        self._parameters = dict(module.named_parameters())
        self._skips = skips
        self._reads_at_once = reads_at_once and not skips
        self.unread: list[Watched] = []  # what `read` will look at
        self._skipped: Tensor | None = None  # updates, on their device, since `take_skipped`
        self._warned = False

    def watch(self, number: int, update: Update, batch: Batch) -> Tensor:
        """The summed loss to minimise.

        Args:
            number: Of the update, counted from 1.
            update: What was computed.
            batch: What it was computed from.

        Raises:
            FloatingPointError: If the loss is read at once and not finite.
        """
        total = update.total_loss
        self.unread.append(Watched(number, update, batch, total.detach()))
        if self._reads_at_once:
            self.read()
        if self._skips:  # makes every gradient NaN, and with several learners those of all
            total = total * torch.where(total.isfinite(), 1.0, torch.nan)
        return total

    def read(self) -> None:
        """Looks at the losses watched since the last time.

        Raises:
            FloatingPointError: If one is not finite and updates are not skipped. The sentence names
                what went bad, the update and what its batch was like.
        """
        unread, self.unread = self.unread, []
        totals = torch.stack([each.total for each in unread]).tolist() if unread else []
        for watched, total in zip(unread, totals, strict=True):
            if not math.isfinite(total):
                self._report(self._description(watched))
                return

    def finite(self, number: int, values: Mapping[str, float]) -> dict[str, float]:
        """Those of the values of an update that are finite, all of them if none is skipped.

        Raises:
            FloatingPointError: If one is not and updates are not skipped.
        """
        self.read()
        for name, value in values.items():
            if not (math.isfinite(value) or self._skips):
                raise FloatingPointError(
                    f"Training diverged: '{name}' is {value} at update {number}."
                )
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def found_inf(self) -> Tensor | None:
        """1.0 if a gradient is not finite, at which a fused optimizer leaves all as it is."""
        if not self._skips:
            return None
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        bad = get_total_norm(gradients, foreach=True).isfinite().logical_not().float()
        self._skipped = bad if self._skipped is None else self._skipped + bad
        return bad

    def take_skipped(self) -> int:
        """Updates skipped since the last time."""
        skipped = 0 if self._skipped is None else int(self._skipped)
        self._skipped = None
        if skipped:
            self._report("an update's gradient is not finite")
        return skipped

    @torch.no_grad()
    def check_parameters(self, number: int) -> None:
        """Looks at the parameters, after update `number`.

        Raises:
            FloatingPointError: If one is not finite, whether updates are skipped or not: skipping
                more of them would cure nothing.
        """
        if math.isfinite(get_total_norm(list(self._parameters.values()), foreach=True)):
            return
        culprit = self._culprit(gradients=not self._skips)
        if culprit is not None:  # else only the norm itself is too large a number
            raise FloatingPointError(
                f"Training diverged: {culprit} is not finite, update {number}."
            )

    def _report(self, text: str) -> None:
        if not self._skips:
            raise FloatingPointError(f"Training diverged: {text}.")
        if not self._warned:
            logger.warning("Such updates are skipped and counted from here on: %s.", text)
            self._warned = True

    def _description(self, watched: Watched) -> str:
        update = watched.update
        name, loss = "total_loss", float(watched.total)
        losses = {each: float(tensor.detach()) for each, tensor in update.losses.items()}
        for each, value in losses.items():
            if not math.isfinite(value):
                name, loss = each, value
                break
        text = f"the loss '{name}' is {loss} at update {watched.number}"
        # Gradients of the update before are still there where the loss is read at once.
        culprit = self._culprit(gradients=self._reads_at_once)
        if culprit is not None:
            text += f" because {culprit} is not finite"
        quantities = {
            "q_values": update.predictions.q_values,
            "goal": watched.batch.transitions.goal,
        }
        if (target := update.target) is not None:
            quantities |= {
                "target": target.value,
                "reward": target.backup.reward,
                "discount": target.backup.discount,
                "log_prob_next": target.log_prob_next,
            }
        described = (f"{name} {_range(values)}" for name, values in quantities.items())
        return f"{text}; its batch has {', '.join(described)}"

    def _culprit(self, gradients: bool) -> str | None:
        """The first gradient, if asked for, or parameter that is not finite, in words."""
        if gradients:
            bad = _first_bad((name, p.grad) for name, p in self._parameters.items())
            if bad is not None:
                return f"the gradient of '{bad}' before it"
        bad = _first_bad(self._parameters.items())
        return None if bad is None else f"the parameter '{bad}'"


def _first_bad(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    bad = (name for name, value in named if value is not None and not value.isfinite().all())
    return next(bad, None)


def _range(values: Tensor) -> str:
    values = values.detach().double().flatten()
    finite = values[values.isfinite()]
    bad = len(values) - len(finite)
    text = f"({bad} of {len(values)} not finite)" if bad else ""
    if len(finite) == 0:
        return text
    low, high, mean = float(finite.min()), float(finite.max()), float(finite.mean())
    return f"in [{low:.4g}, {high:.4g}] with mean {mean:.4g} {text}".rstrip()

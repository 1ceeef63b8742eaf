"""Critics Q(s, a, g), evaluated together in batched products: small ones cost overhead.

`CriticEnsemble` takes an action as an input. `ActionCritics` has an output for each of finitely
many actions, and is linear in a distribution over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.precision import RoundedProducts, rounds_products


class CriticEnsemble(RoundedProducts):
    """E independent critics Q(s, a, g) evaluated as one batched matrix product a layer.

    Args:
        input_dim: Width of the normalised input, the action left out.
        action_dim: A.
        hidden: Widths of the hidden layers.
        num_critics: E.
        layer_norm: Normalise each hidden layer before its ReLU.
    """

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        num_critics: int = 2,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_critics = num_critics
        self.layer_norm = layer_norm
        sizes = self._sizes(input_dim, action_dim, hidden)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = 1 / math.sqrt(inputs)  # nn.Linear's own initialisation
            weight = torch.empty(num_critics, inputs, outputs).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            bias = torch.empty(num_critics, 1, outputs).uniform_(-bound, bound)
            self.biases.append(nn.Parameter(bias))
        # A ParameterList looks each of them up by name, at every pass.
        layers = zip(self.weights, self.biases, strict=True)
        self._layers: list[tuple[Tensor, Tensor]] = list(layers)
        self.gains = nn.ParameterList()
        self.shifts = nn.ParameterList()
        if layer_norm:
            for width in hidden:
                self.gains.append(nn.Parameter(torch.ones(num_critics, 1, width)))
                self.shifts.append(nn.Parameter(torch.zeros(num_critics, 1, width)))
        self._norms: list[tuple[Tensor, Tensor]] = list(zip(self.gains, self.shifts, strict=True))

    @staticmethod
    def _sizes(input_dim: int, action_dim: int, hidden: Sequence[int]) -> list[int]:
        return [input_dim + action_dim, *hidden, 1]

    @rounds_products
    def forward(self, inputs: Tensor, actions: Tensor, frozen: bool = False) -> Tensor:
        """Values of all critics.

        Args:
            inputs: (B, I), the same for each critic. No gradient passes to them if `frozen`.
            actions: (B, A), the same for each critic.
            frozen: Let gradients pass to the actions but not to the weights: what the policy's
                loss needs, in the same backward pass as the critic's own.

        Returns:
            (E, B) values.
        """
        layers, norms = self._layers, self._norms
        if frozen:
            layers = [(weight.detach(), bias.detach()) for weight, bias in layers]
            norms = [(gain.detach(), shift.detach()) for gain, shift in norms]
        weight, bias = layers[0]
        if frozen:  # apart, or the gradient of the inputs would be computed, only to be dropped
            weights = torch.split(weight, [inputs.shape[-1], actions.shape[-1]], dim=1)
            bias = torch.baddbmm(bias, self._for_each(inputs), weights[0])
            hidden = torch.baddbmm(bias, self._for_each(actions), weights[1])
        else:
            both = torch.cat([inputs, actions], dim=-1)
            hidden = torch.baddbmm(bias, self._for_each(both), weight)
        for index, (weight, bias) in enumerate(layers[1:-1]):
            hidden = torch.baddbmm(bias, _activate(hidden, norms, index), weight)
        weight, bias = layers[-1]
        # Sums, since libraries of matrix products are several times slower at a single column.
        values = (_activate(hidden, norms, len(layers) - 2) * weight.transpose(1, 2)).sum(-1)
        return values + bias.squeeze(-1)

    def lowest(
        self,
        inputs: Tensor,
        actions: Tensor,
        chosen: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """(B,) min_i Q_i(s, a, g), over the critics `chosen` (M,) or all, as `forward` else."""
        values: Tensor = self(inputs, actions, frozen)
        return (values if chosen is None else values[chosen]).amin(0)

    def _for_each(self, inputs: Tensor) -> Tensor:
        return inputs.expand(self.num_critics, *inputs.shape)


class ActionCritics(CriticEnsemble):
    """E independent critics of n outputs each, Q(s, a, g) of every action a.

    Args:
        As of `CriticEnsemble`, with n for A.
    """

    @staticmethod
    def _sizes(input_dim: int, action_dim: int, hidden: Sequence[int]) -> list[int]:
        return [input_dim, *hidden, action_dim]

    @rounds_products
    def each(self, inputs: Tensor) -> Tensor:
        """(E, B, n) values of every action for inputs (B, I)."""
        weight, bias = self._layers[0]
        hidden = torch.baddbmm(bias, self._for_each(inputs), weight)
        for index, (weight, bias) in enumerate(self._layers[1:]):
            hidden = torch.baddbmm(bias, _activate(hidden, self._norms, index), weight)
        return hidden

    def forward(self, inputs: Tensor, actions: Tensor, frozen: bool = False) -> Tensor:
        """(E, B) values of actions (B, n) or means over distributions; see `CriticEnsemble`."""
        values = self.each(inputs)
        return ((values.detach() if frozen else values) * actions).sum(-1)

    def lowest(
        self,
        inputs: Tensor,
        actions: Tensor,
        chosen: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """(B,) Σ_a π(a) min_i Q_i(s, a, g): the minimum is of each action."""
        values = self.each(inputs)
        lowest = (values if chosen is None else values[chosen]).amin(0)
        return ((lowest.detach() if frozen else lowest) * actions).sum(-1)


def _activate(hidden: Tensor, norms: Sequence[tuple[Tensor, Tensor]], index: int) -> Tensor:
    """ReLU of a hidden layer (E, B, H), after its LayerNorm where there are `norms`."""
    if norms:
        gain, shift = norms[index]
        hidden = torch.addcmul(shift, F.layer_norm(hidden, hidden.shape[-1:]), gain)
    return F.relu(hidden, inplace=True)

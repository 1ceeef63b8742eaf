"""Critics Q(s, a, g), evaluated together in batched products.

`CriticEnsemble` takes an action as an input. `ActionCritics` has an output for each of finitely
many actions, and is linear in a distribution over them. `StateCritics` looks at no action.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rllib_odac.agent.mlp_ensemble import MLPEnsemble, activate
from rllib_odac.agent.networks import FourierFeatures
from rllib_odac.agent.precision import rounds_products


class CriticEnsemble(MLPEnsemble):
    """E independent critics Q(s, a, g) evaluated as one batched matrix product a layer.

    Args:
        input_dim: Width of the normalised input, the action left out.
        action_dim: A.
        hidden: Widths of the hidden layers.
        num_critics: E.
        layer_norm: Normalise each hidden layer before its ReLU.
        features: Of the input, which each critic sees in its place.
    """

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        num_critics: int = 2,
        layer_norm: bool = False,
        features: FourierFeatures | None = None,
    ) -> None:
        sizes = self._sizes(input_dim, action_dim, hidden)
        super().__init__(sizes, num_critics, layer_norm, features)

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
        if self.features is not None:
            inputs = self.features(inputs)
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
            hidden = torch.baddbmm(bias, activate(hidden, norms, index), weight)
        weight, bias = layers[-1]
        # Sums, since libraries of matrix products are several times slower at a single column.
        values = (activate(hidden, norms, len(layers) - 2) * weight.transpose(1, 2)).sum(-1)
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


class ActionCritics(CriticEnsemble):
    """E independent critics of n outputs each: `each` gives Q(s, a, g) of every action a.

    Args:
        As of `CriticEnsemble`, with n for A.
    """

    @staticmethod
    def _sizes(input_dim: int, action_dim: int, hidden: Sequence[int]) -> list[int]:
        return [input_dim, *hidden, action_dim]

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


class StateCritics(CriticEnsemble):
    """E independent values V(s, g) in the place of critics: of whatever action.

    Args:
        As of `CriticEnsemble`.
    """

    @staticmethod
    def _sizes(input_dim: int, action_dim: int, hidden: Sequence[int]) -> list[int]:
        return [input_dim, *hidden, 1]

    def forward(self, inputs: Tensor, actions: Tensor, frozen: bool = False) -> Tensor:
        """(E, B) values for inputs (B, I); see `CriticEnsemble`."""
        values: Tensor = super().forward(inputs, actions[:, :0], frozen)
        return values

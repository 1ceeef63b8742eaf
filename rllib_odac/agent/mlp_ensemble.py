"""E networks of one shape, evaluated together in batched products: small ones cost overhead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.networks import FourierFeatures
from rllib_odac.agent.precision import RoundedProducts, rounds_products


class MLPEnsemble(RoundedProducts):
    """E independent multilayer perceptrons, one batched matrix product a layer.

    Args:
        sizes: Widths of inputs, hidden layers and outputs.
        num_members: E.
        layer_norm: Normalise each hidden layer before its ReLU.
        features: Of the first of the inputs, which the members see in their place.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        num_members: int,
        layer_norm: bool = False,
        features: FourierFeatures | None = None,
    ) -> None:
        super().__init__()
        self.num_members = num_members
        self.features = features
        if features is not None:
            sizes = [sizes[0] + len(features.phases), *sizes[1:]]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = 1 / math.sqrt(inputs)  # nn.Linear's own initialisation
            weight = torch.empty(num_members, inputs, outputs).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            bias = torch.empty(num_members, 1, outputs).uniform_(-bound, bound)
            self.biases.append(nn.Parameter(bias))
        # A ParameterList looks each of them up by name, at every pass.
        layers = zip(self.weights, self.biases, strict=True)
        self._layers: list[tuple[Tensor, Tensor]] = list(layers)
        self.gains = nn.ParameterList()
        self.shifts = nn.ParameterList()
        if layer_norm:
            for width in sizes[1:-1]:
                self.gains.append(nn.Parameter(torch.ones(num_members, 1, width)))
                self.shifts.append(nn.Parameter(torch.zeros(num_members, 1, width)))
        self._norms: list[tuple[Tensor, Tensor]] = list(zip(self.gains, self.shifts, strict=True))

    @rounds_products
    def each(self, inputs: Tensor) -> Tensor:
        """(E, B, O) what each member says of inputs (B, I)."""
        if self.features is not None:
            inputs = self.features(inputs)
        weight, bias = self._layers[0]
        hidden = torch.baddbmm(bias, self._for_each(inputs), weight)
        for index, (weight, bias) in enumerate(self._layers[1:]):
            hidden = torch.baddbmm(bias, activate(hidden, self._norms, index), weight)
        return hidden

    def _for_each(self, inputs: Tensor) -> Tensor:
        return inputs.expand(self.num_members, *inputs.shape)


def activate(hidden: Tensor, norms: Sequence[tuple[Tensor, Tensor]], index: int) -> Tensor:
    """ReLU of a hidden layer (E, B, H), after its LayerNorm where there are `norms`."""
    if norms:
        gain, shift = norms[index]
        hidden = torch.addcmul(shift, F.layer_norm(hidden, hidden.shape[-1:]), gain)
    return F.relu(hidden, inplace=True)

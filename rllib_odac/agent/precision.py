"""How exactly PyTorch computes: for a while, set and set back, and in networks."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treats denormal numbers as zero, in this thread and for this while only.

    Adam's moments of weights that no longer learn decay into them, and a CPU counts many times
    slower with denormal numbers: a tenth of an update's time after 10,000 updates.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Lets matrix products of float32 numbers be this exact for a while: see PyTorch's setting.

    Args:
        precision: Of PyTorch's names, or "auto": "high" on a GPU, "highest" on a CPU.
        device: Where they are computed.
    """
    if precision == "auto":
        precision = "high" if device.type == "cuda" else "highest"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class RoundedProducts(nn.Module):
    """A network whose matrix products may be of rounded numbers, and nothing else of it.

    Attributes:
        products: The type of their factors; None for that of the inputs.
    """

    products: torch.dtype | None = None


Network = TypeVar("Network", bound=RoundedProducts)
More = ParamSpec("More")
Forward = Callable[Concatenate[Network, Tensor, More], Tensor]


def rounds_products(forward: Forward[Network, More]) -> Forward[Network, More]:
    """Lets a method of `RoundedProducts` heed `products`; what it returns is of its inputs' type.

    So densities, targets and losses, which are made of what networks say, stay in float32.
    """

    @functools.wraps(forward)
    def rounded(
        network: Network, inputs: Tensor, /, *args: More.args, **kwargs: More.kwargs
    ) -> Tensor:
        if network.products is None:
            return forward(network, inputs, *args, **kwargs)
        with torch.autocast(inputs.device.type, network.products):
            return forward(network, inputs, *args, **kwargs).to(inputs.dtype)

    return rounded


def round_products(module: nn.Module, precision: str) -> None:
    """Lets all networks in a module round factors of products to "bfloat16", or "none" of them."""
    dtype = {"none": None, "bfloat16": torch.bfloat16}[precision]
    for network in module.modules():
        if isinstance(network, RoundedProducts):
            network.products = dtype

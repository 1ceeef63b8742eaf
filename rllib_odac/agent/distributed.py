"""Sums and means over the learners of a group, by PyTorch's collective operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Name = TypeVar("Name")


def sum_over_learners(values: Tensor, device: torch.device) -> Tensor:
    """The sum over all learners of a tensor on the CPU; `device` is where they communicate."""
    values = values.to(device)
    torch.distributed.all_reduce(values)
    return values.cpu()


def mean_over_learners(gradients: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    """Gradients averaged by one all-reduce of all of them."""
    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    torch.distributed.all_reduce(flat.div_(torch.distributed.get_world_size()))
    parts = torch.split(flat, [gradient.numel() for gradient in gradients.values()])
    named = zip(gradients.items(), parts, strict=True)
    return {name: part.view_as(gradient) for (name, gradient), part in named}


def copy_from_first_learner(parameters: Iterable[Tensor]) -> None:
    """Overwrites parameters by those of the first learner."""
    for parameter in parameters:
        torch.distributed.broadcast(parameter.detach(), src=0)

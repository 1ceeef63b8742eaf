"""Several learners average their gradients by one all-reduce: two processes of Gloo."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from rllib_odac.agent.distributed import copy_from_first_learner, mean_over_learners
from rllib_odac.agent.networks import mlp

pytestmark = pytest.mark.distributed
UPDATES = 500


def one_by_one(gradients):
    for gradient in gradients.values():
        dist.all_reduce(gradient)
    return {name: gradient / dist.get_world_size() for name, gradient in gradients.items()}


def train(rank, directory):
    """Fits a network to data of this process alone, its gradients averaged in both ways."""
    torch.set_num_threads(1)
    file = f"file://{directory}/meeting"
    dist.init_process_group("gloo", init_method=file, rank=rank, world_size=2)
    torch.manual_seed(rank)
    inputs, targets = torch.randn(64, 5), torch.randn(64, 3)
    start = mlp([5, 16, 3]).state_dict()
    for name, average in (("flat", mean_over_learners), ("single", one_by_one)):
        network = mlp([5, 16, 3])
        network.load_state_dict(start)
        copy_from_first_learner(network.parameters())
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
        for _ in range(UPDATES):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(inputs), targets).backward()
            averaged = average({p: p.grad for p in network.parameters()})
            for parameter, gradient in averaged.items():
                parameter.grad = gradient
            optimizer.step()
        torch.save(network.state_dict(), f"{directory}/{name}_{rank}.pt")
    dist.destroy_process_group()


def test_one_all_reduce_is_averaging_parameter_by_parameter(tmp_path):
    torch.multiprocessing.spawn(train, (str(tmp_path),), nprocs=2)
    files = [f"{name}_{rank}.pt" for name in ("flat", "single") for rank in range(2)]
    expected, *others = (torch.load(tmp_path / file) for file in files)
    for other in others:
        for name, value in expected.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=0)

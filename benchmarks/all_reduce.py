"""Two learners' gradients averaged by one all-reduce, beside PyTorch's DistributedDataParallel.

    python benchmarks/all_reduce.py

Two processes of Gloo, one thread each, update networks of the size of ODAC's at its defaults on
FetchPush, each from data of its own. `flat` is `mean_over_learners`, `ddp` averages in buckets
while the backward pass goes on, `apart` averages nothing. They take turns; a row is a round of one
of them, and `difference` the largest between a parameter of `flat` and `ddp` after 500 updates from
the same start, in steps of Adam.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rllib_odac.agent.distributed import copy_from_first_learner, mean_over_learners
from rllib_odac.agent.networks import mlp
from rllib_odac.experiments.study_runner import cpu_model

BATCH, LR, EQUAL_AFTER, UPDATES = 256, 1e-3, 500, 50
SIZES = ([31, 256, 256, 8], [35, 256, 256, 1], [35, 256, 256, 1], [32, 256, 256, 6])


class Networks(nn.Module):
    """As many parameters as a policy, two critics and a model have."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(mlp(sizes) for sizes in SIZES)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """() a loss of all of them."""
        pairs = zip(self.parts, inputs, strict=True)
        return torch.stack([part(each).square().mean() for part, each in pairs]).sum()


def make(
    kind: str, start: dict[str, Any], inputs: list[Tensor]
) -> tuple[Networks, Callable[[], None]]:
    """Networks from this start, and a function that makes one update of them."""
    networks = Networks()
    networks.load_state_dict(start)
    module = DistributedDataParallel(networks) if kind == "ddp" else networks
    optimizer = torch.optim.Adam(networks.parameters(), lr=LR, fused=True)

    def update() -> None:
        optimizer.zero_grad()
        module(inputs).backward()
        if kind == "flat":
            gradients = {p: p.grad for p in networks.parameters() if p.grad is not None}
            for parameter, gradient in mean_over_learners(gradients).items():
                parameter.grad = gradient
        optimizer.step()

    return networks, update


def learn(rank: int, directory: str, rounds: int) -> None:
    """What each of the two processes does; the first one writes down how long."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2
    )
    torch.manual_seed(rank)
    inputs = [torch.randn(BATCH, sizes[0]) for sizes in SIZES]
    first = Networks()
    copy_from_first_learner(first.parameters())
    made = {kind: make(kind, first.state_dict(), inputs) for kind in ("apart", "flat", "ddp")}
    for _ in range(EQUAL_AFTER):
        for _, update in made.values():
            update()
    flat, ddp = (list(made[kind][0].parameters()) for kind in ("flat", "ddp"))
    apart = max(float((a - b).detach().abs().max()) for a, b in zip(flat, ddp, strict=True))
    rows = []
    for number in range(rounds):
        for kind, (_, update) in made.items():
            dist.barrier()
            start = time.perf_counter()
            for _ in range(UPDATES):
                update()
            ms = 1e3 * (time.perf_counter() - start) / UPDATES
            rows.append({"round": number, "what": kind, "ms": round(ms, 3)})
    if rank == 0:
        table = pd.DataFrame(rows).assign(difference=apart / LR)
        table.to_csv(f"{directory}/rows.csv", index=False)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Measures, and prints medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    results = Path(__file__).with_name("results")
    parser.add_argument("--output", type=Path, default=results / "all_reduce.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        torch.multiprocessing.spawn(learn, (directory, options.rounds), nprocs=2)
        rows = pd.read_csv(f"{directory}/rows.csv")
    print(rows.groupby("what", sort=False)["ms"].median())
    print(f"largest difference {rows['difference'].iloc[0]:.2g} steps of Adam")
    rows = rows.assign(
        cpu=cpu_model(), torch=torch.__version__, date=datetime.date.today().isoformat()
    )
    rows.to_csv(options.output, index=False)


if __name__ == "__main__":
    main()

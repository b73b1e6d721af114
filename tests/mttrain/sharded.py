"""Run by test_processes.py in two processes: named sets and checkpoints of a sharded network."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mttrain import checkpoint
from mttrain.weights import WeightSets


def made(shard: bool) -> tuple[nn.Module, WeightSets, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    if shard:
        fully_shard(net, mesh=init_device_mesh("cpu", (2,)), reshard_after_forward=True)
    weights = WeightSets(dict(net.named_parameters()))
    assert weights.sharded is shard
    return net, weights, torch.optim.AdamW(net.parameters(), lr=0.1)


def step(net: nn.Module, weights: WeightSets, optimizer: torch.optim.Optimizer) -> None:
    net(torch.linspace(-1, 1, 12).view(2, 6)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    weights.blend("average", 0.5)
    with weights.using("average"), torch.no_grad():
        net(torch.ones(2, 6))


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    first = dist.get_rank() == 0
    runs = {name: made(name == "sharded") for name in ("plain", "sharded")}
    for name, (net, weights, optimizer) in runs.items():
        weights.keep("average")
        for _ in range(3):
            step(net, weights, optimizer)
        checkpoint.save(folder / name, weights, [optimizer], {}, write=first)
    dist.barrier()
    plain, sharded = (load_file(folder / name) for name in runs)
    assert plain.keys() == sharded.keys()
    for name, value in plain.items():
        torch.testing.assert_close(sharded[name], value, msg=name)

    net, weights, optimizer = made(shard=True)
    checkpoint.load(folder / "sharded", weights, [optimizer])
    for name, run in (("again", (net, weights, optimizer)), ("on", runs["sharded"])):
        step(*run)
        checkpoint.save(folder / name, run[1], [run[2]], {}, write=first)
    dist.barrier()
    again, on = (load_file(folder / name) for name in ("again", "on"))
    assert again.keys() == on.keys() and all(torch.equal(again[name], on[name]) for name in on)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

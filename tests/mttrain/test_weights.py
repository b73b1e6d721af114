"""Named sets of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mttrain.weights import WeightSets, warmed


def made() -> tuple[nn.Linear, WeightSets]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    return layer, WeightSets(dict(layer.named_parameters()))


def test_a_set_is_in_force_only_within_its_block() -> None:
    layer, weights = made()
    weights.keep("old")
    old = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1)
    with weights.using("old"):
        assert torch.equal(layer.weight, old)
    assert torch.equal(layer.weight, old + 1)
    with pytest.raises(ZeroDivisionError), weights.using("old"):
        1 / 0  # noqa: B018
    assert torch.equal(layer.weight, old + 1)


def test_using_a_set_leaves_gradients_alone() -> None:
    layer, weights = made()
    weights.keep("old")
    with torch.no_grad():
        layer.weight.mul_(2)
        with weights.using("old"):
            before = layer(torch.ones(1, 3))
    (layer(torch.ones(1, 3)) - before).sum().backward()
    assert layer.weight.grad is not None and torch.equal(layer.weight.grad, torch.ones(2, 3))


def test_blending_is_a_weighted_mean() -> None:
    layer, weights = made()
    weights.keep("average")
    old = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1)
    weights.blend("average", 0.25)
    assert torch.allclose(weights.sets["average"]["weight"], old + 0.25)
    weights.take("average")
    assert torch.allclose(layer.weight, old + 0.25)


def test_an_early_average_does_not_remember_the_start() -> None:
    assert warmed(0.999, 0) == 0.1 and warmed(0.9, 1000) == 0.9

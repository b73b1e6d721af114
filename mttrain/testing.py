"""The contract that makes a family of flow editors trainable by its adapter alone, as tests for its author to inherit.

Example::

    class TestMyFamily(FlowEditorContract):
        @pytest.fixture
        def editor(self) -> FlowEditor:
            return MyFamily(pretrained="a tiny random checkpoint", device="cpu", dtype="float32")
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from mteval.editors.flow import Condition, FlowEditor
from mttrain.policy import Policy
from mttrain.recipe import Adapter

_INSTRUCTIONS = ["Add a red circle", "Remove the star"]


class FlowEditorContract:
    """Inherit it, with a pytest fixture ``editor`` that makes a fresh editor in float32 on the CPU."""

    size = (64, 64)
    """(width, height) of the images that the tests edit."""

    def test_sigmas_fall_from_noise_to_data(self, editor: FlowEditor) -> None:
        sigmas = editor.sigmas(editor.working_size(self.size))
        assert len(sigmas) == editor.steps + 1 and sigmas[-1] == 0 and 0.9 < sigmas[0] <= 1
        assert sigmas == sorted(set(sigmas), reverse=True)

    def test_images_and_samples_are_of_one_latent_space(self, editor: FlowEditor) -> None:
        condition = self._condition(editor)
        with torch.no_grad():
            latents = editor.encode_images(self._images())
            shown = editor.images(latents, condition.size, self.size)
        assert latents.shape == editor.noise([1, 2], condition.size).shape
        assert [image.size for image in shown] == [self.size] * 2 and shown[0].mode == "RGB"

    def test_noise_belongs_to_its_seed(self, editor: FlowEditor) -> None:
        size = editor.working_size(self.size)
        both, one = editor.noise([1, 2], size), editor.noise([2], size)
        assert torch.equal(both[1:], one) and not torch.equal(both[0], both[1])

    def test_a_batch_is_its_items_one_by_one(self, editor: FlowEditor) -> None:
        condition = self._condition(editor)
        noise, sigma = editor.noise([1, 2], condition.size), torch.tensor([0.9, 0.3])
        with torch.no_grad():
            both = editor.velocity(noise, sigma, condition)
            for k in range(2):
                text = {name: tensor[k : k + 1] for name, tensor in condition.text.items()}
                item = Condition(text, condition.image[k : k + 1], condition.size)
                one = editor.velocity(noise[k : k + 1], sigma[k : k + 1], item)
                torch.testing.assert_close(both[k : k + 1], one, rtol=1e-3, atol=1e-4)
        assert both.shape == noise.shape

    def test_an_adapter_reaches_what_it_should_and_nothing_else(self, editor: FlowEditor) -> None:
        policy = Policy(editor, Adapter(rank=2, alpha=4))
        condition = self._condition(editor)
        noise = editor.noise([1, 2], condition.size)
        with torch.no_grad():
            for name, parameter in policy.trainable().items():
                if "lora_B" in name:  # zero at the start, and with it the gradient of the other half
                    parameter.normal_()
        policy.velocity(noise, torch.tensor([0.9, 0.3]), condition).square().sum().backward()
        reached = {name for name, parameter in policy.module.named_parameters() if parameter.grad is not None}
        assert reached == set(policy.trainable()) and all("lora_" in name for name in reached)
        targets = set(editor.lora_targets(policy.module))
        adapted = {end for end in targets if any(f".{end}.lora_A" in f".{name}" for name in reached)}
        assert adapted == targets, "every named layer exists"

    def test_an_untrained_adapter_adds_exactly_nothing(self, editor: FlowEditor) -> None:
        condition = self._condition(editor)
        noise, sigma = editor.noise([1, 2], condition.size), torch.tensor([0.9, 0.3])
        with torch.no_grad():
            before = editor.velocity(noise, sigma, condition)
            policy = Policy(editor, Adapter(rank=2, alpha=4))
            assert torch.equal(policy.velocity(noise, sigma, condition), before.float())

    def test_a_network_put_in_its_place_is_the_one_that_runs(self, editor: FlowEditor) -> None:
        calls: list[int] = []
        inner = editor.network

        class Counted(nn.Module):
            def forward(self, *args: Any, **named: Any) -> Any:
                calls.append(1)
                return inner(*args, **named)

        editor.network = Counted()
        condition = self._condition(editor)
        with torch.no_grad():
            editor.velocity(editor.noise([1, 2], condition.size), torch.tensor([0.9, 0.3]), condition)
        assert calls and editor.network is not inner

    def test_the_text_encoders_are_named(self, editor: FlowEditor) -> None:
        encoders = editor.text_encoders
        assert encoders and all(isinstance(encoder, nn.Module) for encoder in encoders)

    def _images(self) -> list[Image.Image]:
        return [Image.linear_gradient("L").resize(self.size).convert("RGB").rotate(angle) for angle in (0, 90)]

    def _condition(self, editor: FlowEditor) -> Condition:
        with torch.no_grad():
            return editor.prepare([(image,) for image in self._images()], _INSTRUCTIONS)

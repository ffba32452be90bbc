"""Observations of several parts: each image has convolutions of its own, everything else goes on as it is."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from rldistill.errors import MismatchError
from rldistill.networks import InputNormalization, OutputLayer, PolicyNetwork, measure_size, parse_architecture
from rldistill.policies import TorchPolicy, load_policy
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout

PARTS = (
    ObservationPart("arm", (3,)),
    ObservationPart("camera", (36, 36, 3), "uint8"),
    ObservationPart("pressed", (2,), "uint8"),  # bytes, but no picture
)
SIZE = 3 + 36 * 36 * 3 + 2


def make_network(parts=PARTS, size=SIZE, text="combined:4-4:8:6", **options):
    heads = {"task": OutputLayer.choice(5)}
    generator = torch.Generator().manual_seed(0)
    architecture = parse_architecture(text)
    return PolicyNetwork(architecture, (size,), heads, parts=parts, generator=generator, zero_output=False, **options)


def vectors(num_rows=3, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(num_rows, size, generator=generator)
    rows[:, 3:-2] = torch.randint(0, 256, (num_rows, SIZE - 5), generator=generator).float()
    return rows


def by_hand(weights, rows, *, scale):
    images = rows[:, 3:-2].reshape(len(rows), 36, 36, 3).movedim(3, 1) * scale
    for layer, stride in ((0, 4), (2, 2)):
        weight, bias = weights[f"torso.images.0.{layer}.weight"], weights[f"torso.images.0.{layer}.bias"]
        images = functional.relu(functional.conv2d(images, weight, bias, stride))
    weight, bias = weights["torso.images.0.5.weight"], weights["torso.images.0.5.bias"]
    features = functional.relu(functional.linear(images.flatten(1), weight, bias))
    joined = torch.cat([rows[:, :3], features, rows[:, -2:]], dim=1)
    weight, bias = weights["heads.0.hidden.0.weight"], weights["heads.0.hidden.0.bias"]
    hidden = functional.relu(functional.linear(joined, weight, bias))
    return functional.linear(hidden, weights["heads.0.output.weight"], weights["heads.0.output.bias"])


def test_it_computes_what_torchs_functions_compute():
    network = make_network(input_scale=1 / 255)
    expected = by_hand(network.state_dict(), vectors(), scale=1 / 255)
    torch.testing.assert_close(network(vectors()).outputs, expected)


def test_the_factor_is_for_images_alone():
    network = make_network(input_scale=0.5)
    torch.testing.assert_close(network(vectors()).outputs, by_hand(network.state_dict(), vectors(), scale=0.5))


def test_images_alone_may_come_as_bytes():
    parts = (ObservationPart("a", (1, 36, 36), "uint8"), ObservationPart("b", (36, 36, 1), "uint8"))
    network = make_network(parts, 2 * 36 * 36, input_scale=1 / 255)
    rows = torch.randint(0, 256, (3, 2 * 36 * 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(network(rows).outputs, network(rows.float()).outputs)
    assert network(rows).features.shape == (3, 6)


def test_what_is_appended_to_the_parts_goes_on_as_it_is():
    network = make_network(size=SIZE + 1)
    rows = torch.cat([vectors(), torch.tensor([[1.0], [0.5], [0.0]])], dim=1)
    seen = network.torso(rows)
    torch.testing.assert_close(seen[:, -1], rows[:, -1])
    assert seen.shape == (3, 3 + 8 + 2 + 1)


def test_statistics_are_applied_before_the_parts_are_told_apart():
    normalization = InputNormalization((1.0,) * SIZE, (4.0,) * SIZE, 1e-8, 1e6)
    normalised, bare = make_network(normalization=normalization), make_network()
    bare.load_state_dict({name: value for name, value in normalised.state_dict().items() if "scale" not in name})
    torch.testing.assert_close(normalised(vectors()).outputs, bare((vectors() - 1) / 2).outputs, rtol=1e-4, atol=1e-3)


def test_its_size_is_counted():
    size = measure_size(make_network())
    macs = 8 * 8 * 4 * (3 * 64) + 3 * 3 * 4 * (4 * 16) + 36 * 8 + 13 * 6 + 6 * 5
    assert size.num_macs == macs


@pytest.mark.parametrize(
    ("parts", "listing"),
    [
        ((), "none"),
        ((ObservationPart("a", (SIZE,)),), f"a float32 [{SIZE}]"),
        ((ObservationPart("a", (3, 99, 99), "uint8"),), "a uint8 [3, 99, 99]"),
    ],
)
def test_observations_without_images_do_not_fit(parts, listing):
    with pytest.raises(MismatchError) as caught:
        make_network(parts)
    assert str(caught.value) == (
        "Network 'combined:4-4:8:6' takes observations of several parts, some of them images, got parts: "
        f"{listing} ({SIZE} numbers). Choose mlp:64x64, or conv:8-8-8:32 for a single image."
    )


def task_of(parts=PARTS, name="task", size=SIZE):
    layout = ActionLayout.discrete(5)
    return Task(name, ObservationFingerprint((size,), "float32", layout, observation_parts=parts))


def test_a_student_of_several_parts_is_created_saved_and_loaded(tmp_path):
    policy = TorchPolicy.create(parse_architecture("combined:4-4:8"), [task_of()], zero_output=False)
    assert policy.spec.input_scale == 1 / 255
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert loaded.hash == policy.hash
    torch.testing.assert_close(loaded(vectors())[0].raw, policy(vectors())[0].raw, rtol=0, atol=0)


def test_images_of_floats_have_convolutions_where_the_architecture_says_so(tmp_path):
    parts = (PARTS[0], replace(PARTS[1], dtype="float32"), PARTS[2])
    floats = replace(parse_architecture("combined:4-4:8"), float_images=True)
    task, bytes_task = task_of(parts), task_of()
    policy = TorchPolicy.create(floats, [task], zero_output=False, generator=torch.Generator().manual_seed(0))
    same = TorchPolicy.create(
        replace(floats, float_images=False),
        [bytes_task],
        zero_output=False,
        generator=torch.Generator().manual_seed(0),
    )
    rows = vectors()
    scaled = rows.clone()
    scaled[:, 3:-2] /= 255
    assert policy.spec.input_scale == 1
    torch.testing.assert_close(policy(scaled)[0].raw, same(rows)[0].raw, rtol=1e-5, atol=1e-5)
    policy.save(tmp_path / "p.safetensors")
    assert load_policy(tmp_path / "p.safetensors").spec.architecture.float_images
    assert "float_images" not in same.spec.architecture.to_dict()


def test_tasks_of_different_parts_cannot_share_a_torso():
    other = (ObservationPart("arm", (SIZE,)),)
    with pytest.raises(ValueError, match="one kind of observation: images go through convolutions that see one kind"):
        TorchPolicy.create(parse_architecture("combined:4-4:8"), [task_of(), task_of(other, "other")])

"""Policies of boxes and of normalised observations: what a file keeps of them."""

import numpy as np
import pytest
import torch

from rldistill.errors import PolicyFileError
from rldistill.networks import GaussianOptions, InputNormalization
from rldistill.policies import load_policy
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout
from tests.kit.small_policies import small_policy

BOX = ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 10.0), "tanh_rescale")
TASK = Task("made-up", ObservationFingerprint((4,), "float32", BOX))
STATISTICS = InputNormalization((1.0, 2.0, 1e5, 0.123456789012345), (1.0, 2.0, 3.0, 1e-7), clip=5.0)


def vectors(num_rows=20):
    return torch.randn(num_rows, 4, generator=torch.Generator().manual_seed(1)) + torch.tensor([1, 2, 1e5, 0])


@pytest.mark.parametrize("weights_dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("kind", "gaussian"),
    [
        ("gaussian", GaussianOptions()),
        ("gaussian", GaussianOptions("parameter")),
        ("gaussian", GaussianOptions("fixed")),
        ("gaussian", GaussianOptions("gsde", 2.0)),
        ("actions", GaussianOptions()),
    ],
)
def test_a_file_keeps_everything(tmp_path, kind, gaussian, weights_dtype):
    policy = small_policy(TASK, output_kind=kind, gaussian=gaussian, normalization=STATISTICS)
    policy = policy.with_spec(weights_dtype=weights_dtype)
    policy.save(tmp_path / "policy.safetensors")
    loaded = load_policy(tmp_path / "policy.safetensors")
    assert loaded.hash == policy.hash
    assert loaded.spec == policy.spec
    assert loaded.normalization == STATISTICS  # to the last digit, whatever the weights are kept in
    expected, _ = policy(vectors())
    got, _ = loaded(vectors())
    torch.testing.assert_close(got.raw, expected.raw, rtol=0, atol=0 if weights_dtype == "float32" else 0.05)


def test_actions_lie_in_the_box_and_sampling_spreads_them():
    policy = small_policy(TASK, output_kind="gaussian", normalization=STATISTICS)
    greedy, _ = policy.act(vectors())
    assert greedy.dtype == np.float32
    assert greedy.shape == (20, 2)
    low, high = np.array(BOX.low), np.array(BOX.high)
    drawn, _ = policy.with_spec(behaviour="sample").act(vectors(), rng=np.random.default_rng(0))
    assert ((drawn >= low) & (drawn <= high)).all()
    assert np.abs(drawn - greedy).mean() > 0.1


def test_statistics_decide_what_a_policy_does():
    plain, normalised = (
        small_policy(TASK, output_kind="actions"),
        small_policy(TASK, output_kind="actions", normalization=STATISTICS),
    )
    assert plain.normalization is None
    assert (plain(vectors())[0].raw - normalised(vectors())[0].raw).abs().max() > 0.1


def test_a_description_without_its_statistics_is_refused(tmp_path):
    policy = small_policy(TASK, output_kind="actions")
    policy.with_spec(normalization={"epsilon": 1e-8, "clip": 10.0}).save(tmp_path / "policy.safetensors")
    with pytest.raises(PolicyFileError, match=r"scale\.mean missing instead of float64 \[4\]"):
        load_policy(tmp_path / "policy.safetensors")


def test_old_descriptions_have_no_new_keys():
    assert small_policy().spec.to_dict().keys() == {
        "name",
        "architecture",
        "module",
        "heads",
        "output_kind",
        "behaviour",
        "input_scale",
        "weights_dtype",
        "provenance",
    }


def test_elements_that_are_left_untouched_are_neither_normalised_nor_clipped(tmp_path):
    statistics = InputNormalization((0.0, 0.0, 5.0, 5.0), (4.0,) * 4, 1e-12, 1.0, untouched=((1, 3),))
    policy = small_policy(TASK, output_kind="actions", normalization=statistics)
    seen = policy.network.scale(torch.tensor([[1.0, 77.0, 9.0, 99.0]]))
    torch.testing.assert_close(seen, torch.tensor([[0.5, 77.0, 9.0, 1.0]]))
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert loaded.normalization == statistics
    assert loaded.hash == policy.hash


@pytest.mark.parametrize("untouched", [((0, 5),), ((-1, 2),), ((2, 2),)])
def test_spans_outside_the_vector_are_refused(untouched):
    with pytest.raises(ValueError, match="untouched must be spans of a vector of 4"):
        InputNormalization((0.0,) * 4, (1.0,) * 4, untouched=untouched)

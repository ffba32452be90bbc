"""Running statistics that a user names: plain arrays, part of the policy, one line where they do not fit."""

import io
import math
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from rldistill.adapters import normalizer_file
from rldistill.adapters.load import load_policy
from rldistill.adapters.normalizer_file import read_normalizer
from rldistill.adapters.weights import Archive
from rldistill.errors import MismatchError, PolicyFileError, TeacherWarning, UsageError
from rldistill.limits import Budget
from rldistill.networks import InputNormalization
from tests.kit.other_libraries import ActorCritic, PPOContinuous, QNetwork, randomised
from tests.kit.small_policies import box_task, image_task, small_policy, vector_task

MEAN, VAR = np.array([1.0, -2.0, 0.5, 0.0]), np.array([4.0, 0.25, 1.0, 9.0])
ROWS = (20 * torch.randn(50, 4, generator=torch.Generator().manual_seed(1))).numpy()


def normalised(rows, clip=10.0, epsilon=1e-8):
    return np.clip((rows - MEAN) / np.sqrt(VAR + epsilon), -clip, clip).astype(np.float32)


@pytest.fixture
def statistics(tmp_path):
    np.savez(tmp_path / "statistics.npz", mean=MEAN, var=VAR, count=1234.0)
    return tmp_path / "statistics.npz"


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(randomised(PPOContinuous()).state_dict(), tmp_path / "ppo.cleanrl_model")
    return tmp_path / "ppo.cleanrl_model"


def test_they_become_part_of_the_policy_and_nothing_is_missing_then(checkpoint, statistics, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = load_policy(checkpoint, task=box_task(), normalizer=statistics)
    with torch.no_grad():
        expected = randomised(PPOContinuous())(torch.from_numpy(normalised(ROWS)))
    torch.testing.assert_close(policy(ROWS)[0].mean, expected[:, :2], rtol=1e-4, atol=1e-5)
    source = policy.spec.provenance["source"]
    assert source["notes"] == []
    assert (source["normalizer"]["file"], source["normalizer"]["num_observations"]) == ("statistics.npz", 1234)
    policy.save(tmp_path / "own.safetensors")
    again = load_policy(tmp_path / "own.safetensors")
    assert again.hash == policy.hash
    assert again.normalization == policy.normalization


def test_the_word_none_does_without_and_without_the_warning(checkpoint):
    with pytest.warns(TeacherWarning, match="name it with --normalizer"):
        bare = load_policy(checkpoint, task=box_task())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_policy(checkpoint, task=box_task(), normalizer="none").normalization is None
    assert bare.normalization is None


@pytest.mark.parametrize("clip", [2.5, math.inf])
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_arrays_may_say_how_they_are_used(checkpoint, tmp_path, suffix, clip):
    path = tmp_path / f"statistics.{suffix}"
    arrays = {"mean": MEAN, "var": VAR, "epsilon": np.array(0.5), "clip": np.array([clip])}
    np.savez(path, **arrays) if suffix == "npz" else safetensors.numpy.save_file(arrays, path)
    policy = load_policy(checkpoint, task=box_task(), normalizer=path)
    with torch.no_grad():
        expected = randomised(PPOContinuous())(torch.from_numpy(normalised(ROWS, clip, 0.5)))
    torch.testing.assert_close(policy(ROWS)[0].mean, expected[:, :2], rtol=1e-4, atol=1e-5)
    assert policy.normalization.clips == math.isfinite(clip)
    policy.save(tmp_path / "own.safetensors")
    assert load_policy(tmp_path / "own.safetensors").hash == policy.hash


@pytest.mark.parametrize("num_inputs", [4, 105, 111, 348, 376])
def test_safetensors_are_known_whatever_the_length_of_their_header(tmp_path, num_inputs):
    # With the larger ones the length, and so the file, begins with the byte that a pickle begins with.
    path = tmp_path / "statistics.safetensors"
    safetensors.numpy.save_file({"mean": np.zeros(num_inputs), "var": np.ones(num_inputs)}, path)
    assert (path.read_bytes()[0] == 0x80) == (num_inputs > 4)
    assert read_normalizer(path).statistics[""].mean.shape == (num_inputs,)


def test_a_module_of_ones_own_may_have_them(statistics, tmp_path):
    reference = randomised(QNetwork())
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "weights.pt")
    said = {"task": vector_task(), "outputs": "q_values", "normalizer": statistics}
    policy = load_policy(tmp_path / "weights.pt", module=QNetwork(), **said)
    with torch.no_grad():
        torch.testing.assert_close(
            policy(ROWS)[0].q_values, reference(torch.from_numpy(normalised(ROWS))), rtol=1e-4, atol=1e-5
        )
    policy.save(tmp_path / "own.safetensors")
    assert load_policy(tmp_path / "own.safetensors", module=QNetwork()).hash == policy.hash


def refusal(path, *, error=MismatchError, **options):
    with pytest.raises(error) as caught:
        load_policy(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "FILE").replace(str(options.get("normalizer")), "STATISTICS")


def test_statistics_of_other_observations_are_refused_with_both_sides(checkpoint, statistics, tmp_path):
    np.savez(statistics, mean=MEAN[:3], var=VAR[:3])
    assert refusal(checkpoint, task=box_task(), normalizer=statistics) == (
        "Normaliser file STATISTICS has statistics of shape [3], Policy file FILE (CleanRL ppo_continuous_action) "
        "takes 4 numbers. Was it saved with another policy? Name this one's own, or do without: --normalizer none."
    )
    torch.save(randomised(QNetwork()).state_dict(), tmp_path / "w.pt")
    said = {"module": QNetwork(), "task": vector_task(), "outputs": "logits", "normalizer": statistics}
    assert "has statistics of shape [3]" in refusal(tmp_path / "w.pt", **said)


def test_where_they_have_no_place_they_are_refused(statistics, tmp_path):
    path = tmp_path / "w.cleanrl_model"
    torch.save(randomised(QNetwork(atari=True)).state_dict(), path)
    assert refusal(path, error=UsageError, task=image_task(), normalizer=statistics) == (
        "Policy file FILE (CleanRL dqn_atari) takes images, which are not normalised by running statistics: leave "
        "normalizer out."
    )
    torch.save({"model_state_dict": randomised(ActorCritic(normalised=True)).state_dict()}, path)
    assert refusal(path, error=UsageError, task=box_task(), activation="elu", normalizer=statistics) == (
        "Policy file FILE holds the statistics of its observations itself: leave normalizer out."
    )
    small_policy().save(tmp_path / "own.safetensors")
    assert ") takes no normalizer" in refusal(tmp_path / "own.safetensors", error=UsageError, normalizer=statistics)


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        (
            {"mu": MEAN, "var": VAR},
            "got arrays mu, var, expected mean and var, and perhaps count, epsilon, clip. Save it again under these "
            "names.",
        ),
        ({"mean": MEAN, "var": VAR, "std": VAR}, "got arrays mean, std, var, expected mean and var, and perhaps"),
        ({"mean": MEAN, "var": VAR[:2]}, "cannot be used: a mean of shape [4] and a var of shape [2]."),
        ({"mean": MEAN, "var": -VAR}, "cannot be used: var holds negative numbers; it is the square of the spread."),
        ({"mean": MEAN * np.nan, "var": VAR}, "cannot be used: mean holds NaN or infinity."),
        ({"mean": MEAN > 0, "var": VAR}, "cannot be used: mean is bool, expected numbers."),
        ({"mean": MEAN, "var": VAR, "clip": np.zeros(1)}, "epsilon 1e-08 must be 0 or more and clip 0 positive."),
        ({"mean": MEAN, "var": VAR, "epsilon": np.array(np.inf)}, "cannot be used: epsilon is inf."),
        ({"mean": MEAN, "var": VAR, "count": MEAN}, "cannot be used: count is float64 [4], expected one number."),
        (
            {"mean": np.array([object()]), "var": VAR},
            "mean.npy in it is no array of numbers: an array of objects, which would have to be executed",
        ),
    ],
)
def test_arrays_that_cannot_be_are_one_line(tmp_path, arrays, line):
    path = tmp_path / "statistics.npz"
    np.savez(path, **arrays)
    with pytest.raises(PolicyFileError) as caught:
        read_normalizer(path)
    assert str(caught.value).startswith(f"Normaliser file {path}")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool], ids=str)
def test_what_is_no_number_is_refused_in_safetensors_too(tmp_path, dtype):
    path = tmp_path / "statistics.safetensors"
    safetensors.torch.save_file({"mean": torch.zeros(4, dtype=dtype), "var": torch.ones(4)}, path)
    with pytest.raises(PolicyFileError) as caught:
        read_normalizer(path)
    assert str(caught.value) == (
        f"Normaliser file {path}: its statistics cannot be used: mean is {str(dtype)[6:]}, expected numbers. Save its "
        "mean and var to an .npz and name that with --normalizer, or do without: --normalizer none."
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32], ids=str)
def test_numbers_of_any_type_are_read_from_safetensors(tmp_path, dtype):
    path = tmp_path / "statistics.safetensors"
    safetensors.torch.save_file({"mean": torch.tensor([3, -2], dtype=dtype), "var": torch.ones(2)}, path)
    assert read_normalizer(path).statistics[""].mean.tolist() == [3.0, -2.0]


def test_a_header_that_is_no_python_is_one_line(tmp_path):
    path = tmp_path / "statistics.npz"
    np.savez(path, mean=MEAN, var=VAR)
    path.write_bytes(zipped_again(path, lambda data: data.replace(b"(4,)", b"(4, ")))
    with pytest.raises(PolicyFileError) as caught:
        read_normalizer(path)
    assert str(caught.value).startswith(f"Normaliser file {path}: mean.npy in it is no array of numbers: ")
    assert "\n" not in str(caught.value)


def zipped_again(path, change):
    data = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(data, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)))
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (None, "cannot be read: No such file or directory. Is the path right?"),
        (b"", "is empty"),
        (
            b"PK\x03\x04cut off",
            "cannot be read: File is not a zip file. It is not a zip archive, or its download or copy is incomplete. "
            "Fetch it again.",
        ),
        (safetensors.numpy.save({"mean": MEAN})[:-3], "cannot be read as tensors"),
        (b"mean,var\n1,2\n", "cannot be read: it is no whole pickle (at position 0, opcode b'm' unknown)."),
    ],
)
def test_files_that_hold_none_are_one_line(tmp_path, data, line):
    path = tmp_path / "statistics"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(PolicyFileError) as caught:
        read_normalizer(path)
    assert str(caught.value).startswith(f"Normaliser file {path} {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "line"),
    [
        (
            {f"a{index:02}.npy": 4 for index in range(9)},
            "FILE: got arrays a00, a01, a02, a03, a04, a05, a06, a07 and 1 more, expected mean and var, and perhaps "
            "count, epsilon, clip. Save it again under these names.",
        ),
        (
            {"mean.npy": 3, "var.npy": 3, "count.npy": 3},
            "FILE is refused: got 9 MiB, expected at most 8 MiB.",
        ),
    ],
    ids=["other names", "too much together"],
)
def test_of_what_unpacks_to_too_much_nothing_is_unpacked(tmp_path, monkeypatch, members, line):
    path = tmp_path / "statistics.npz"
    block = np.random.default_rng(0).bytes(1 << 14)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, num_mebibytes in members.items():
            archive.writestr(name, block * (num_mebibytes << 6))
    monkeypatch.setattr(normalizer_file, "STATISTICS", Budget(8 << 20, 100))
    monkeypatch.setattr(Archive, "read", lambda *_: pytest.fail("something was unpacked"))
    with pytest.raises(PolicyFileError) as caught:
        read_normalizer(path)
    assert str(caught.value) == f"Normaliser file {line.replace('FILE', str(path))}"


def test_statistics_that_clip_nothing_can_be_saved(tmp_path):
    policy = small_policy(normalization=InputNormalization(tuple(MEAN), tuple(VAR), clip=math.inf))
    policy.save(tmp_path / "p.safetensors")
    again = load_policy(tmp_path / "p.safetensors")
    assert again.normalization == policy.normalization
    assert not again.normalization.clips

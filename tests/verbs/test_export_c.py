"""`rldistill export --to c`: files, sizes, int8 from a dataset, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import GateError, MismatchError, OutputExistsError, RldistillError, UsageError
from rldistill.exports import c_format, fine_tuning
from rldistill.exports.c import library
from rldistill.networks import Architecture
from rldistill.options.export import ExportOptions
from rldistill.verbs.export import export, prepare
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import run, run_well
from tests.kit.small_policies import image_task, small_policy
from tests.kit.tiny_envs import ShiftedSpaces

FEW = {"num_episodes": 2, "num_envs": 2, "num_threads": 1}

pytestmark = pytest.mark.skipif(library.find_compiler() is None, reason="no C compiler (cc, gcc or clang) is installed")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    hand_made_teacher().save(path)
    return path


@pytest.fixture(scope="module")
def data(teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "cart"
    rd.collect(teacher, "CartPole-v1", num_steps=400, out=path, num_envs=2, num_threads=1, seed=1)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_source_and_header_lie_beside_contract_and_report(teacher, tmp_path):
    result = export(teacher, tmp_path / "cart.c", **FEW)
    assert names(tmp_path) == ["cart.c", "cart.c.contract.json", "cart.c.report.json", "cart.h"]
    assert result.parity.agreement == 1
    assert result.parity.largest_output_error < 1e-5
    header = (tmp_path / "cart.h").read_text()
    assert "void cart_act(const float *observation, float *action);" in header
    assert hand_made_teacher().hash in header
    sizes = json.loads((tmp_path / "cart.c.report.json").read_text())["written"]
    assert sizes["num_macs"] > 0
    assert f"{sizes['num_macs']:,} multiply-adds for a decision" in str(result)


def test_the_header_says_where_the_environment_begins_to_count(tmp_path):
    def make():
        return TimeLimit(ShiftedSpaces(), 5)

    policy = small_policy(make_task(make).task)
    export(policy, tmp_path / "a.c", task=make, **FEW)
    header = (tmp_path / "a.h").read_text()
    assert "] action, one of 3, counted from 0; the environment counts from -1: add it" in header


def test_the_header_says_what_is_appended_to_an_observation(tmp_path):
    task = make_task("CartPole-v1", {"zero_padding": 2, "time_feature": 500})
    export(small_policy(task.task), tmp_path / "a.c", **FEW)
    header = (tmp_path / "a.h").read_text()
    assert "[4 to 5] zero_padding, always 0\n" in header
    assert "[6] time_left, 1 - t / T after t decisions of an episode, T = 500\n" in header


def test_int8_is_calibrated_on_the_dataset(teacher, data, tmp_path):
    result = export(teacher, tmp_path / "cart.c", data=data, precision="int8", **FEW)
    assert result.parity.agreement >= 0.9
    assert "static const int8_t last_layer_weight[2][" in (tmp_path / "cart.c").read_text()


def test_int8_that_computes_otherwise_than_its_arithmetic_is_refused(teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        library.Library, "_function", lambda self, function, size: lambda row, state=None: np.zeros(size, np.float32)
    )
    with pytest.raises(
        RldistillError, match=r"^--to c: the compiled code gives other int8 results than its arithmetic"
    ):
        export(teacher, tmp_path / "cart.c", data=data, precision="int8", **FEW)
    assert names(tmp_path) == []


def test_a_copy_is_trained_with_the_rounding_in_the_loop_before_it_is_written(teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "NUM_UPDATES", 20)
    before = teacher.read_bytes()
    result = export(teacher, tmp_path / "cart.c", data=data, precision="int8", quantization_aware=True, **FEW)
    assert result.parity.agreement >= 0.9
    assert teacher.read_bytes() == before
    contract = json.loads((tmp_path / "cart.c.contract.json").read_text())
    assert (contract["precision"], contract["policy"]["tuned_from"]) == ("int8", hand_made_teacher().hash)
    assert contract["policy"]["hash"] != hand_made_teacher().hash


def test_a_policy_that_does_not_fit_is_not_written(teacher, tmp_path):
    with pytest.raises(
        RldistillError, match=r"^--fits: the policy does not fit: it needs flash [\d.]+k of 0.1k\. Noth"
    ):
        export(teacher, tmp_path / "cart.c", fits="flash=100,ram=8k", **FEW)
    assert names(tmp_path) == []
    export(teacher, tmp_path / "cart.c", fits="flash=64k,ram=8k", **FEW)
    assert "cart.h" in names(tmp_path)


def test_layers_that_cannot_be_written_are_refused_before_anything_is_played(data, tmp_path):
    policy = small_policy(hand_made_teacher().tasks[0], network="mlp:8", layer_norm=True)
    whole = {"data": data, "task": "CartPole-v1", "precision": "int8"}
    with pytest.raises(MismatchError, match=r"^C of precision int8 is not written for layer norms: .* Use --precision"):
        prepare(ExportOptions(policy, tmp_path / "a.c", **whole, **FEW))
    with pytest.raises(MismatchError) as refused:
        prepare(ExportOptions(policy, tmp_path / "a.onnx", quantization_aware=True, **whole, **FEW))
    assert str(refused.value) == (
        "--quantization-aware is not written for layer norms: got a network with them. Leave it out, or distil it into "
        "a network without."
    )
    prepare(ExportOptions(policy, tmp_path / "a.onnx", **whole, **FEW))


def test_the_option_that_a_kind_of_layer_is_not_for_is_named_before_anything_is_played(tmp_path):
    stages = Architecture("made-up", "impala", (8,), (4,), (3,), (2,))
    with pytest.raises(MismatchError, match=r"^C is not written for layers of kind ImpalaStage: .* Export it as onnx"):
        prepare(ExportOptions(small_policy(image_task(), network=stages), tmp_path / "a.c", **FEW))
    policy, rows = small_policy(image_task(), network=stages), torch.zeros(1, 4, 84, 84, dtype=torch.uint8)
    with pytest.raises(MismatchError, match=r"^--quantization-aware is not written for .*ImpalaStage: .* Leave it out"):
        fine_tuning.tunable(policy, rows)


def test_sizes_are_read_in_bytes_kibibytes_and_mebibytes(teacher):
    options = ExportOptions(teacher, "x.c", fits="flash=1M, ram=300")
    assert options.most_bytes == {"flash": 1 << 20, "ram": 300}
    for text in ("", "rom=1k", "flash=0", "flash=1k,flash=2k", "flash"):
        with pytest.raises(UsageError, match="expected flash=64k, ram=8k or both with a comma between"):
            ExportOptions(teacher, "x.c", fits=text)


def test_without_a_compiler_the_export_says_that_it_was_not_run(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(c_format, "find_compiler", lambda: None)
    result = export(teacher, tmp_path / "cart.c", **FEW)
    assert "not verified: nothing on this machine runs c." in str(result)
    assert json.loads((tmp_path / "cart.c.report.json").read_text())["parity"] is None


def test_c_that_acts_otherwise_is_kept_aside(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(
        library.Library,
        "_function",
        lambda self, function, size: lambda row, state=None: np.arange(size, dtype=np.float32),
    )
    with pytest.raises(GateError, match=r"cart.c is not written: it acts as the policy does in"):
        export(teacher, tmp_path / "cart.c", **FEW)
    assert names(tmp_path) == [
        "cart.failed.c",
        "cart.failed.c.contract.json",
        "cart.failed.c.report.json",
        "cart.failed.h",
    ]
    assert '#include "cart.failed.h"' in (tmp_path / "cart.failed.c").read_text()


def test_a_header_of_that_name_stays(teacher, tmp_path):
    (tmp_path / "cart.h").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"cart.h is there already"):
        export(teacher, tmp_path / "cart.c", **FEW)
    assert names(tmp_path) == ["cart.h"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out", "x.onnx", "--fits", "flash=64k"], "--fits is for --to c, got --to onnx."),
        (["--out", "x.c", "--fits", "64k"], "--fits: got '64k', expected flash=64k, ram=8k or both"),
        (["--out", "x.c", "--quantization-aware"], "--quantization-aware is for --precision int8, got float32."),
        (["--out", "x.c", "--precision", "float16"], "--precision float16: --to c has float32, int8."),
    ],
)
def test_wrong_usage_is_told_in_one_line(teacher, arguments, line):
    result = run("export", teacher, "--quiet", *arguments)
    assert (result.code, line in result.line) == (2, True), result.line


def test_the_command_writes_c(teacher, tmp_path):
    said = run_well("export", teacher, "--out", tmp_path / "cart.c", "--num-episodes", 1)
    assert "flash " in said.stderr
    assert "cart.h" in names(tmp_path)


@pytest.mark.parametrize("stem", ['a"b', "a\\b", "a'b", "a??b", "a\nb"])
def test_a_file_name_that_c_cannot_include_is_refused(teacher, tmp_path, stem):
    with pytest.raises(UsageError, match=r"^--out: got the file name .*, which C cannot include"):
        export(teacher, tmp_path / f"{stem}.c", **FEW)
    assert names(tmp_path) == []

"""`rldistill export` from a policy to files that act as it does, and what it refuses."""

import json

import numpy as np
import onnx
import pytest

import rldistill as rd
from rldistill.errors import GateError, OutputExistsError, RldistillError
from rldistill.exports import onnx_format
from rldistill.exports.onnx_format import contract_in
from rldistill.verbs.export import export
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import run, run_well
from tests.kit.small_policies import small_policy, vector_task

FEW = {"num_episodes": 2, "num_envs": 2, "num_threads": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    hand_made_teacher().save(path)
    return path


def test_an_export_lies_beside_its_contract_and_its_report(teacher, tmp_path):
    result = export(teacher, tmp_path / "cart.onnx", **FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cart.onnx",
        "cart.onnx.contract.json",
        "cart.onnx.report.json",
    ]
    assert json.loads((tmp_path / "cart.onnx.report.json").read_text()) == result.to_dict()
    assert contract_in(tmp_path / "cart.onnx") == json.loads((tmp_path / "cart.onnx.contract.json").read_text())
    assert result.parity.agreement == 1
    assert result.parity.num_decisions > 2
    assert result.score is None
    assert "no score: no task was named" in str(result)


def test_an_onnx_file_is_read_back_as_the_policy_it_was(teacher, tmp_path):
    export(teacher, tmp_path / "cart.onnx", **FEW)
    original, copy = rd.load_policy(teacher), rd.load_policy(tmp_path / "cart.onnx")
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.testing.assert_array_equal(copy.act(rows)[0], original.act(rows)[0])
    np.testing.assert_allclose(copy(rows)[0].raw, original(rows)[0].raw, rtol=1e-5, atol=1e-6)
    assert onnx.load(tmp_path / "cart.onnx").opset_import[0].version == 17


def test_with_a_task_policy_and_export_are_scored_on_the_same_episodes(teacher, tmp_path):
    result = export(teacher, tmp_path / "cart.onnx", task="CartPole-v1", **FEW)
    policy, copy, _ = result.score.policies
    assert [policy.role, copy.role] == ["teacher", "student"]
    assert policy.mean == copy.mean
    assert "policy " in str(result)


def test_an_export_that_acts_otherwise_is_kept_aside_and_fails(teacher, tmp_path, monkeypatch):
    other = small_policy(vector_task(2, 4), seed=3)
    whole = onnx_format.make_model
    monkeypatch.setattr(onnx_format, "make_model", lambda onnx, policy, **how: whole(onnx, other, **how))
    with pytest.raises(GateError, match=r"cart.onnx is not written: it acts as the policy does in .* expected 100%"):
        export(teacher, tmp_path / "cart.onnx", **FEW)
    kept = ["cart.failed.onnx", "cart.failed.onnx.contract.json", "cart.failed.onnx.report.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert json.loads((tmp_path / "cart.failed.onnx.report.json").read_text())["problems"]


def test_an_earlier_export_stays_unless_overwrite_is_said(teacher, tmp_path):
    (tmp_path / "cart.onnx").write_text("mine")
    with pytest.raises(
        OutputExistsError, match=r"cart.onnx is there already. Choose another --out, or add --overwrite"
    ):
        export(teacher, tmp_path / "cart.onnx", **FEW)
    assert (tmp_path / "cart.onnx").read_text() == "mine"
    export(teacher, tmp_path / "cart.onnx", overwrite=True, **FEW)
    assert (tmp_path / "cart.onnx").stat().st_size > 100


def test_a_stop_leaves_nothing_behind(teacher, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        export(teacher, tmp_path / "cart.onnx", callbacks=[lambda event: True], **FEW)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_was_found_and_with_json_the_report(teacher, tmp_path):
    said = run_well("export", teacher, "--out", tmp_path / "cart.onnx", "--num-episodes", 1, "--quiet")
    assert said.stderr == ""
    report = run_well("export", teacher, "--out", tmp_path / "two.onnx", "--num-episodes", 1, "--json", "--quiet").json
    assert (report["format"], report["precision"], report["score"]) == ("onnx", "float32", None)
    assert report["decision_seconds"]["export"]["median_seconds"] > 0


def test_a_dry_run_writes_nothing(teacher, tmp_path):
    result = run_well("export", teacher, "--out", tmp_path / "cart.onnx", "--dry-run", "--json")
    assert result.json["to"] == "onnx"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--out", "x.bin"], 2, "--out x.bin: its ending names no format. Add --to: one of onnx (.onnx)"),
        (["--out", "x.pt", "--to", "onnx"], 2, "got a path ending in '.pt', expected a file ending in .onnx"),
        (["--out", "x.onnx", "--precision", "int8"], 1, "names none that is still there. Name one: --data FOLDER."),
        (["--out", "x.onnx", "--data", "gone"], 1, "gone is not a dataset"),
        (["--out", "x.onnx", "--probabilities"], 2, "gives q_values, which are no choices"),
        (["--out", "/proc/none/x.onnx"], 1, "cannot be written"),
    ],
)
def test_bad_input_is_told_in_one_line(teacher, arguments, code, line):
    result = run("export", teacher, "--num-episodes", 1, "--quiet", *arguments)
    assert (result.code, line in result.line) == (code, True), result.line


def test_a_head_that_was_not_named_is_asked_for(tmp_path):
    small_policy(vector_task(3, name="first"), vector_task(5, name="second")).save(tmp_path / "two.safetensors")
    result = run("export", tmp_path / "two.safetensors", "--out", tmp_path / "x.onnx")
    assert result.line.endswith("has heads for first, second: name one of them with --task.")
    assert result.code == 2


def test_a_policy_without_a_task_needs_data(tmp_path):
    with pytest.raises(RldistillError, match=r"compared with its policy on real observations, and there are none: .*"):
        export(small_policy(), tmp_path / "x.onnx")


def test_a_program_has_no_weights_to_export(teacher, tmp_path):
    export(teacher, tmp_path / "cart.onnx", **FEW)
    with pytest.raises(RldistillError, match="is a program, not weights"):
        export(tmp_path / "cart.onnx", tmp_path / "again.onnx")

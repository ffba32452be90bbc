"""`rldistill export` from a policy to files that act as it does, and what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import onnx
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import TimeLimit

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import DiskFullError, GateError, MismatchError, OutputExistsError, RldistillError, UsageError
from rldistill.exports import onnx_format, torch_formats
from rldistill.exports.contract import make_contract
from rldistill.exports.environment import names_of
from rldistill.exports.formats import Export
from rldistill.exports.names import Names
from rldistill.exports.onnx_format import contract_in
from rldistill.loading.named import as_policy
from rldistill.options.export import ExportOptions
from rldistill.verbs.export import export, prepare
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import run, run_alone, run_well
from tests.kit.interruptions import full_disk
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


def with_contract(path, out, change):
    """Write an ONNX file again with another contract in it."""
    model, contract = onnx.load(path), contract_in(path)
    change(contract)
    onnx.helper.set_model_props(model, {"rldistill.contract": json.dumps(contract)})
    onnx.save(model, out)
    return out


def test_an_onnx_file_plays_the_task_that_its_contract_names(teacher, tmp_path):
    path = tmp_path / "cart.onnx"
    export(teacher, path, **FEW)
    named = rd.evaluate(path, task="CartPole-v1", env_kwargs={"max_episode_steps": 40}, **FEW)
    said = rd.evaluate(path, **FEW)
    assert said.policies[0].task == named.policies[0].task
    assert said.policies[0].played.episodes == named.policies[0].played.episodes
    loaded = rd.evaluate(rd.load_policy(path), **FEW)
    assert loaded.policies[0].played.episodes == named.policies[0].played.episodes
    assert run_well("inspect", path, "--json").json["task"] == "CartPole-v1"
    line = run("collect", path, "--env-kwargs", '{"sutton_barto_reward": true}', "--out", tmp_path / "d").line
    assert "Name the task too: --task CartPole-v1" in line


def test_no_environment_is_made_of_a_contract_before_it_is_played(teacher, tmp_path, monkeypatch):
    path = tmp_path / "cart.onnx"
    export(teacher, path, **FEW)
    made, make = [], gymnasium.make
    monkeypatch.setattr(gymnasium, "make", lambda *given, **settings: made.append(given) or make(*given, **settings))
    assert rd.load_policy(path).tasks[0].name == "CartPole-v1"
    assert as_policy(path, device="cpu").tasks[0].name == "CartPole-v1"
    assert run_well("inspect", path, "--json").json["task"] == "CartPole-v1"
    assert made == []
    rd.evaluate(path, **FEW)
    assert made != []


@pytest.mark.parametrize("own", [onnx_format.ONNX, torch_formats.TORCHSCRIPT, torch_formats.TORCH_EXPORT])
def test_a_clock_and_zeros_of_a_contract_are_given_to_its_policy(own, tmp_path):
    path = tmp_path / f"clock{own.suffix}"
    policy = small_policy(make_task("CartPole-v1", {"zero_padding": 2, "time_feature": 500}).task)
    own.write(Export(policy, make_contract(policy, Names(), None)), path)
    seen = rd.load_policy(path, trust=True).tasks[0].fingerprint
    assert (seen.observation_shape, seen.zero_padding, seen.time_feature) == ((7,), 2, 500)
    episodes = rd.evaluate(policy, **FEW).policies[0].played.episodes
    for task in (None, "CartPole-v1"):
        assert rd.evaluate(path, task=task, trust=True, **FEW).policies[0].played.episodes == episodes


def test_the_task_of_a_contract_imports_nothing_and_must_fit(teacher, tmp_path):
    path = tmp_path / "cart.onnx"
    export(teacher, path, **FEW)

    def names(name):
        return with_contract(path, tmp_path / "other.onnx", lambda contract: contract["task"].update(name=name))

    with pytest.raises(RldistillError, match="stands in a file, and playing it would import"):
        rd.evaluate(names("made_up_module:Env-v0"), **FEW)
    with pytest.raises(RldistillError, match=r"does not fit task 'MountainCar-v0': observation_shape: .4. against"):
        rd.evaluate(names("MountainCar-v0"), **FEW)
    for name in ("unnamed", "atari:pong"):
        with pytest.raises(RldistillError, match="does not say which task it plays"):
            rd.evaluate(names(name), **FEW)


def test_a_contract_of_another_form_names_no_task(teacher, tmp_path):
    path = tmp_path / "cart.onnx"
    export(teacher, path, **FEW)
    with_contract(path, path, lambda contract: contract["observation"]["terms"].append(7))
    with pytest.raises(RldistillError, match="does not say which task it plays"):
        rd.evaluate(path, outputs="q_values", **FEW)


@pytest.mark.parametrize("settings", [{}, {"max_pool": False}])
def test_of_atari_the_contract_names_no_task(settings, tmp_path):
    task = make_task("atari:pong", settings).task
    path = tmp_path / "pong.onnx"
    policy = small_policy(task, network="conv:4-4:4")
    onnx_format.write(Export(policy, make_contract(policy, Names(), None)), path)
    (own,) = as_policy(path, device="cpu").tasks
    assert own.name == "unnamed"
    assert own.fingerprint.action_layout == task.fingerprint.action_layout
    with pytest.raises(RldistillError, match="does not say which task it plays"):
        rd.evaluate(path, **FEW)


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


@pytest.mark.parametrize(
    ("to", "out", "package"),
    [("onnx", "a.onnx", "onnxruntime"), ("hub-folder", "a", "onnx"), ("sb3", "a.zip", "stable_baselines3")],
)
def test_a_missing_package_is_told_before_anything_is_played(to, out, package, teacher, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    events = []
    with pytest.raises(RldistillError, match=f"--to {to if to == 'sb3' else 'onnx'} needs {package}, which"):
        rd.export(teacher, tmp_path / out, to=to, task="CartPole-v1", callbacks=[events.append])
    assert events == []


def test_an_earlier_export_stays_unless_overwrite_is_said(teacher, tmp_path):
    (tmp_path / "cart.onnx").write_text("mine")
    with pytest.raises(
        OutputExistsError, match=r"cart.onnx is there already. Choose another --out, or add --overwrite"
    ):
        export(teacher, tmp_path / "cart.onnx", **FEW)
    assert (tmp_path / "cart.onnx").read_text() == "mine"
    export(teacher, tmp_path / "cart.onnx", overwrite=True, **FEW)
    assert (tmp_path / "cart.onnx").stat().st_size > 100


def test_a_name_that_is_too_long_is_told_in_one_line(teacher, tmp_path):
    for length in (240, 250):
        with pytest.raises(RldistillError, match=r"^--out .* cannot be written: File name too long\. Choose another"):
            export(teacher, tmp_path / f"{'x' * length}.onnx", **FEW)
    assert list(tmp_path.iterdir()) == []


def test_overwrite_deletes_no_folder_that_holds_more_than_an_export(teacher, tmp_path):
    out = tmp_path / "hub"
    export(teacher, out, to="hub-folder", **FEW)
    export(teacher, out, to="hub-folder", overwrite=True, **FEW)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "contract.json",
        "policy.onnx",
        "policy.safetensors",
    ]
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"--overwrite would delete .*thesis.tex: an export --to hub-folder"):
        export(teacher, out, to="hub-folder", overwrite=True, **FEW)
    (tmp_path / "cart.onnx").mkdir()
    with pytest.raises(OutputExistsError, match=r"cart.onnx: got a folder or a link, expected a file"):
        export(teacher, tmp_path / "cart.onnx", overwrite=True, **FEW)
    assert (out / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(("precision", "kept"), [("float32", 0.9), ("float16", None)])
def test_rounded_weights_bear_no_retention_that_was_measured_without(precision, kept, tmp_path):
    hand_made_teacher().save(tmp_path / "policy.safetensors")
    row = {"policy_hash": hand_made_teacher().hash, "retention": 0.9, "episodes": [1]}
    (tmp_path / "evaluation.json").write_text(json.dumps({"policies": [row]}))
    export(tmp_path / "policy.safetensors", tmp_path / "cart.onnx", precision=precision, **FEW)
    contract = contract_in(tmp_path / "cart.onnx")
    assert contract["precision"] == precision
    assert (contract["retention"] or {}).get("value") == kept


def test_a_second_export_that_fails_leaves_the_first(teacher, tmp_path, monkeypatch):
    other = small_policy(vector_task(2, 4), seed=3)
    whole = onnx_format.make_model
    monkeypatch.setattr(onnx_format, "make_model", lambda onnx, policy, **how: whole(onnx, other, **how))
    (tmp_path / "cart.failed.onnx").write_text("mine")
    with pytest.raises(GateError, match=r"kept as .*cart.failed-2.onnx"):
        export(teacher, tmp_path / "cart.onnx", overwrite=True, **FEW)
    assert (tmp_path / "cart.failed.onnx").read_text() == "mine"


def test_statistics_of_an_earlier_zip_are_overwritten_only_where_it_is_said(tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    (tmp_path / "cart.vecnormalize.pkl").write_text("earlier")
    policy, task = hand_made_teacher(), "CartPole-v1"
    with pytest.raises(OutputExistsError, match=r"cart.vecnormalize.pkl is there already"):
        export(policy, tmp_path / "cart.zip", task=task, **FEW)
    export(policy, tmp_path / "cart.zip", task=task, overwrite=True, **FEW)
    assert not (tmp_path / "cart.vecnormalize.pkl").exists()


@pytest.mark.gpu
def test_a_policy_on_a_gpu_is_exported_and_stays_there(q_data, tmp_path):
    task = make_task("CartPole-v1", {"max_episode_steps": 40}).task
    policy = small_policy(task, network="mlp:64x64").to(torch.device("cuda"))
    for name, how in (("a.c", {"precision": "int8", "quantization_aware": True}), ("a.pt", {}), ("a.onnx", {})):
        export(policy, tmp_path / name, data=q_data, device="cuda", num_threads=1, **how)
    assert policy.device.type == "cuda"


def test_an_export_comes_into_its_place_last_and_what_a_kill_left_is_deleted(teacher, tmp_path, monkeypatch):
    left = tmp_path / ".cart.onnx.export" / "files"
    left.mkdir(parents=True)
    (left / "cart.onnx").write_text("half")
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: (moved.append(Path(target)), replace(path, target))[1])
    export(teacher, tmp_path / "cart.onnx", **FEW)
    names = ["cart.onnx.contract.json", "cart.onnx.report.json", "cart.onnx"]
    assert [path.name for path in moved if path.parent == tmp_path] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_full_disk_is_told_of_the_export(teacher, tmp_path):
    with full_disk(1_000), pytest.raises(DiskFullError) as caught:
        export(teacher, tmp_path / "cart.onnx", **FEW)
    assert str(caught.value).startswith(f"Writing {tmp_path / 'cart.onnx'} failed: File too large.")
    assert str(caught.value).endswith("run the same command again, with --resume if it has that option.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("out", "to"), [("a.pt", "torchscript"), ("a.pt2", "torch-export"), ("a.pt", "rsl-rl")])
def test_a_full_disk_is_told_where_torch_writes_the_file(out, to, tmp_path):
    policy = small_policy(make_task("Pendulum-v1").task, output_kind="gaussian")
    policy.save(tmp_path / "p.safetensors")
    told = run_alone(  # a process of its own: torch may end it
        *("export", tmp_path / "p.safetensors", "--to", to, "--out", tmp_path / out, "--num-episodes", 1, "--quiet"),
        max_file_bytes=1_000,
    )
    assert told.line.startswith(f"rldistill export: Writing {tmp_path / out} failed: File too large.")
    assert (told.code, [path.name for path in tmp_path.iterdir()]) == (1, ["p.safetensors"])


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


def test_int8_is_calibrated_on_a_dataset_and_says_what_it_loses(q_data, tmp_path):
    task = make_task("CartPole-v1", {"max_episode_steps": 40}).task
    policy = small_policy(task, network="mlp:64x64")
    result = export(policy, tmp_path / "whole.onnx", data=q_data, num_threads=1)
    small = export(policy, tmp_path / "int8.onnx", data=q_data, precision="int8", num_threads=1)
    assert small.compared_on == result.compared_on == f"30 episodes of {q_data}"
    assert small.parity.num_decisions == result.parity.num_decisions
    assert 0.9 <= small.parity.agreement <= 1
    assert small.parity.largest_output_error > 10 * result.parity.largest_output_error
    assert small.num_bytes["int8.onnx"] < 0.6 * result.num_bytes["whole.onnx"]


def test_names_and_control_rate_come_from_the_environment(tmp_path):
    class Named(CartPoleEnv):
        metadata: ClassVar = {**CartPoleEnv.metadata, "rldistill": {"observation": ["x", "v", "angle", "spin"]}}

    policy = hand_made_teacher()
    export(policy, tmp_path / "cart.pt", task=lambda: TimeLimit(Named(), 20), num_episodes=1, num_threads=1)
    contract = json.loads((tmp_path / "cart.pt.contract.json").read_text())
    assert [term["name"] for term in contract["observation"]["terms"]] == ["x", "v", "angle", "spin"]
    assert contract["control_rate_hz"] == 50.0


@pytest.mark.parametrize("metadata", [["angle"], {"observations": ["angle"]}])
def test_metadata_that_hold_no_names_are_refused(metadata, tmp_path):
    class Named(CartPoleEnv):
        pass

    Named.metadata = {**CartPoleEnv.metadata, "rldistill": metadata}
    with pytest.raises(UsageError, match=r"The metadata of task .*, expected observation, action and control_rate_hz"):
        export(hand_made_teacher(), tmp_path / "cart.pt", task=lambda: TimeLimit(Named(), 20), num_episodes=1)


def test_names_of_a_file_stand_above_those_of_the_environment(teacher, tmp_path):
    file = tmp_path / "cart=pole.json"  # no spans: it is there
    file.write_text('{"observation": [{"name": "state", "size": 4}], "action": ["push"]}')
    out = tmp_path / "out" / "cart.pt"
    run_well("export", teacher, "--out", out, "--names", file, "--num-episodes", 1, "--quiet")
    contract = json.loads((tmp_path / "out" / "cart.pt.contract.json").read_text())
    assert [term["name"] for term in contract["observation"]["terms"]] == ["state"]
    assert contract["action"]["terms"][0] == {
        "name": "push",
        "slice": [0, 1],
        "unit": None,
        "choices": [2],
        "first": [0],
        "meanings": None,
    }


def test_a_policy_that_draws_its_actions_is_exported_with_probabilities_and_a_note(tmp_path):
    policy = hand_made_teacher(kind="logits", behaviour="sample")
    told = []
    export(policy, tmp_path / "cart.onnx", probabilities=True, callbacks=[told.append], **FEW)
    assert "`action` is the most likely one" in told[0].text
    names = [output.name for output in onnx.load(tmp_path / "cart.onnx").graph.output]
    assert names == ["logits", "action", "probabilities"]
    contract = json.loads((tmp_path / "cart.onnx.contract.json").read_text())
    assert contract["policy"]["behaviour"] == "sample"


def test_the_retention_that_was_measured_beside_a_policy_stands_in_its_contract(teacher, tmp_path):
    student = tmp_path / "run" / "student.safetensors"
    policy = small_policy(rd.load_policy(teacher).tasks[0], network="mlp:4")
    policy.save(student)
    row = {"policy_hash": policy.hash, "role": "student", "mean": 30.0, "interval": [29, 31], "episodes": [{}] * 40}
    row |= {"retention": 0.9, "retention_interval": [0.8, 0.95]}
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps({"policies": [row]}))
    export(tmp_path / "run", tmp_path / "cart.pt", **FEW)
    retention = json.loads((tmp_path / "cart.pt.contract.json").read_text())["retention"]
    assert (retention["value"], retention["interval"], retention["num_episodes"]) == (0.9, [0.8, 0.95], 40)


@pytest.mark.parametrize(
    "other", [{"task": "CartPole-v0"}, {"environment_kwargs": {"gravity": 1}}, {"protocol": {"noop_max": None}}]
)
def test_what_was_measured_on_another_task_stands_in_no_contract(other, teacher, tmp_path):
    policy = rd.load_policy(teacher)
    policy.save(tmp_path / "policy.safetensors")
    task = make_task(policy.tasks[0]).task
    row = {"policy_hash": policy.hash, "retention": 0.9, "episodes": [1]}
    own = {"task": task.name, "protocol": task.protocol.to_dict(), "policies": [row]}
    own["environment_kwargs"] = dict(task.environment_kwargs)
    for number, evaluation in enumerate([own, own | other]):
        (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
        out = tmp_path / f"{number}.pt"
        export(tmp_path / "policy.safetensors", out, num_episodes=1, num_threads=1)
        retention = json.loads((tmp_path / f"{number}.pt.contract.json").read_text())["retention"]
        assert (retention is None) == (number == 1)


def test_a_card_names_the_task_on_which_a_score_was_measured(tmp_path):
    policy = hand_made_teacher()

    def make():
        return TimeLimit(CartPoleEnv(), 20)

    export(policy, tmp_path / "hub", to="hub-folder", task=make, **FEW)
    card = (tmp_path / "hub" / "README.md").read_text()
    assert 'dataset: {name: "python:make", type: "python:make"}' in card
    assert "Plays `CartPole-v1` with" in card
    assert "Score on `python:make`: 20 (" in card


def test_a_dry_run_writes_nothing(teacher, tmp_path):
    result = run_well("export", teacher, "--out", tmp_path / "cart.onnx", "--dry-run", "--json")
    assert result.json["to"] == "onnx"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--out", "x.bin"], 2, "--out x.bin: its ending names no format. Add --to: one of onnx (.onnx)"),
        (["--out", "x.pt", "--to", "onnx"], 2, "got a path ending in '.pt', expected a file ending in .onnx"),
        (
            ["--out", "x.onnx", "--precision", "int8"],
            1,
            "names none that is still there. Name one: --data FOLDER, which",
        ),
        (["--out", ".", "--to", "hub-folder"], 2, "--out .: got a folder that is there already, expected a name"),
        (["--out", "x.onnx", "--data", "gone"], 1, "gone is not a dataset"),
        (["--out", "x.onnx", "--probabilities"], 2, "gives q_values, which are no choices"),
        (["--out", "x.zip", "--probabilities"], 2, "files of --to sb3 have no place for them. Leave it out."),
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


def test_a_head_is_named_by_a_task_of_any_kind(tmp_path):
    playable = make_task("CartPole-v1", {"max_episode_steps": 20})
    policy = small_policy(vector_task(3, name="first"), playable.task)
    for number, task in enumerate([playable, playable.task]):
        export(policy, tmp_path / f"{number}.pt", task=task, **FEW)
        contract = json.loads((tmp_path / f"{number}.pt.contract.json").read_text())
        assert contract["task"]["name"] == "CartPole-v1"
    with pytest.raises(MismatchError, match=r"has no head for 'python:make', only for first, CartPole-v1"):

        def make():
            return TimeLimit(CartPoleEnv(), 20)

        export(policy, tmp_path / "c.pt", task=make, **FEW)


def test_a_policy_without_a_task_needs_data(tmp_path):
    with pytest.raises(RldistillError, match=r"compared with its policy on real observations, and there are none: .*"):
        export(small_policy(), tmp_path / "x.onnx")


def test_a_program_has_no_weights_to_export(teacher, tmp_path):
    export(teacher, tmp_path / "cart.onnx", **FEW)
    with pytest.raises(RldistillError, match="is a program, not weights"):
        export(tmp_path / "cart.onnx", tmp_path / "again.onnx")


def test_a_student_is_exported_with_the_data_that_its_run_folder_names(teacher, tmp_path):
    short = {"max_episode_steps": 20}
    rd.collect(teacher, "CartPole-v1", env_kwargs=short, num_steps=300, num_envs=2, out=tmp_path / "data")
    small = {"student": "mlp:4", "num_updates": 5, "evaluate_episodes": 0}
    student = rd.distill(tmp_path / "data", out=tmp_path / "run", **small)
    for named in (tmp_path / "run", tmp_path / "run" / "student.safetensors"):
        result = export(named, tmp_path / "a.onnx", precision="int8", overwrite=True, **FEW)
        assert result.compared_on == f"2 episodes of {tmp_path / 'data'}"
    more = tmp_path / "more"
    rd.collect(teacher, "CartPole-v1", env_kwargs=short, num_steps=200, num_envs=2, seed=1, out=more)
    rd.distill([tmp_path / "data", more], out=tmp_path / "both", **small)
    result = export(tmp_path / "both", tmp_path / "c.onnx", precision="int8", **FEW)
    assert result.compared_on == f"2 episodes of {tmp_path / 'data'} + {more}"
    rd.collect(
        teacher, "CartPole-v1", env_kwargs=short, num_steps=200, num_envs=2, out=tmp_path / "data", overwrite=True
    )
    with pytest.raises(RldistillError, match="names none that is still there"):
        export(tmp_path / "run", tmp_path / "d.onnx", precision="int8", **FEW)
    student.save(tmp_path / "moved" / "student.safetensors")
    with pytest.raises(RldistillError, match="the run folder of policy 'mlp:4' names none that is still there"):
        export(tmp_path / "moved" / "student.safetensors", tmp_path / "b.onnx", precision="int8", **FEW)


def test_data_of_other_tasks_hide_none_of_a_students_own(teacher, tmp_path):
    short = {"max_episode_steps": 20}
    other = small_policy(make_task("Acrobot-v1", short).task)
    for name, policy, task in (("other", other, "Acrobot-v1"), ("data", teacher, "CartPole-v1")):
        rd.collect(policy, task, env_kwargs=short, num_steps=300, num_envs=2, out=tmp_path / name)
    small = {"student": "mlp:4x4", "num_updates": 4, "evaluate_episodes": 0}
    rd.distill([tmp_path / "other", tmp_path / "data"], out=tmp_path / "run", **small)
    settings = {"task": "CartPole-v1", "env_kwargs": short, "data": None, "precision": "int8"}
    job = prepare(ExportOptions(tmp_path / "run", tmp_path / "a.onnx", **settings, **FEW))
    assert job.dataset is not None and job.dataset.path == tmp_path / "data"


def test_a_policy_of_another_library_is_timed_in_that_librarys_own_way(teacher, tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs stable_baselines3")
    export(teacher, tmp_path / "a.zip", **FEW)
    result = export(tmp_path / "a.zip", tmp_path / "b.pt", task="CartPole-v1", **FEW)
    assert result.teacher_decides_by == "predict of stable_baselines3"
    assert set(result.times) == {"export", "policy", "teacher"}


def test_data_say_the_task_where_the_policy_names_one_that_is_not_here(teacher, tmp_path):
    rd.collect(teacher, "CartPole-v1", num_steps=200, num_envs=2, out=tmp_path / "data")
    policy = rd.load_policy(teacher)
    elsewhere = replace(policy.spec.heads[0], task=replace(policy.tasks[0], name="CartPole-v999"))
    policy = policy.with_spec(heads=(elsewhere,))
    job = prepare(ExportOptions(policy, tmp_path / "a.onnx", data=tmp_path / "data", **FEW))
    assert job.task is None and job.playable is not None and job.playable.task.name == "CartPole-v1"


@pytest.mark.parametrize("name", ["sb3", "rsl-rl"])
def test_the_spread_of_a_gaussian_is_its_mean_over_the_data_where_a_format_has_one_for_all_states(name, tmp_path):
    policy = small_policy(make_task("Pendulum-v1").task, output_kind="gaussian")
    policy.network.get_parameter("heads.0.rows.log_std_layer.weight").data.zero_()
    policy.network.get_parameter("heads.0.rows.log_std_layer.bias").data.fill_(-2.0)
    rd.collect(policy, num_steps=300, num_envs=4, out=tmp_path / "data")
    out = tmp_path / ("x.zip" if name == "sb3" else "x.pt")
    export(policy, out, to=name, data=tmp_path / "data", **FEW)
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    copy = rd.load_policy(out, task="Pendulum-v1", activation=None if name == "sb3" else "relu")
    np.testing.assert_allclose(copy(rows)[0].log_std, -2, atol=1e-5)


def test_a_hub_folder_tells_nothing_of_the_folders_that_it_came_from(teacher, tmp_path):
    reading = {"normalizer": str(tmp_path / "vecnormalize.pkl"), "outputs": "logits"}
    recorded = {"name": "b", "hash": "0", "path": str(tmp_path / "b.zip"), "reading": reading}
    config = {"learner": {"init_from": str(tmp_path / "a.safetensors")}, "out": str(tmp_path)}
    # The command is of an earlier version.
    made = {"teachers": [recorded], "config": config, "command": f"rldistill distill --out {tmp_path}"}
    rd.export(hand_made_teacher().with_provenance(made), tmp_path / "hub", to="hub-folder", **FEW)
    for file in (tmp_path / "hub").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    policy = rd.load_policy(tmp_path / "hub")
    assert policy.spec.provenance["teachers"] == [
        recorded | {"path": "b.zip", "reading": reading | {"normalizer": "vecnormalize.pkl"}}
    ]
    assert json.loads((tmp_path / "hub" / "contract.json").read_text())["policy"]["hash"] == policy.hash


def test_a_hub_folder_of_one_head_tells_of_that_head_alone(tmp_path):
    policy = small_policy(vector_task(3, name="first"), make_task("CartPole-v1", {"max_episode_steps": 20}).task)
    export(policy, tmp_path / "hub", to="hub-folder", task="CartPole-v1", **FEW)
    alone, card = rd.load_policy(tmp_path / "hub"), (tmp_path / "hub" / "README.md").read_text()
    contract = json.loads((tmp_path / "hub" / "contract.json").read_text())
    assert [task.name for task in alone.tasks] == ["CartPole-v1"]
    assert alone.hash != policy.hash
    assert contract["policy"]["hash"] == alone.hash
    assert f"with {alone.num_parameters:,} parameters, greedy. SHA-256 `{alone.hash}`" in card


def test_the_card_of_a_hub_folder_names_the_licence(teacher, tmp_path):
    export(teacher, tmp_path / "hub", to="hub-folder", license="apache-2.0", **FEW)
    assert 'license: "apache-2.0"' in (tmp_path / "hub" / "README.md").read_text()
    assert rd.load_policy(tmp_path / "hub").hash == hand_made_teacher().hash
    with pytest.raises(UsageError, match=r"^--license is for the card of --to hub-folder, got --to onnx\.$"):
        export(teacher, tmp_path / "a.onnx", license="mit", **FEW)


@pytest.mark.parametrize(("task", "rate"), [("CartPole-v1", 50.0), ("LunarLander-v3", 50.0), ("MountainCar-v0", None)])
def test_a_control_rate_is_that_of_the_task_where_it_has_one(task, rate):
    assert names_of(make_task(task)).control_rate_hz == rate


def test_int8_has_weights_of_7_bits_and_leaves_the_last_layer(q_data, tmp_path):
    policy = small_policy(make_task("CartPole-v1", {"max_episode_steps": 40}).task, network="mlp:64x64")
    export(policy, tmp_path / "a.onnx", data=q_data, precision="int8", num_threads=1)
    stored = [onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "a.onnx").graph.initializer]
    whole = [each for each in stored if each.dtype == np.int8 and each.ndim == 2]
    assert sorted(each.shape for each in whole) == [(64, 4), (64, 64)], "the last layer stays in float32"
    assert max(np.abs(each.astype(int)).max() for each in whole) <= 64


def test_an_evaluation_leaves_an_exported_folder_as_it_is(teacher, tmp_path, monkeypatch):
    export(teacher, tmp_path / "hub", to="hub-folder", **FEW)
    before = sorted(path.name for path in (tmp_path / "hub").iterdir())
    monkeypatch.chdir(tmp_path)
    run_well("evaluate", "hub", "--num-episodes", "2", "--num-threads", "1", "--quiet")
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == before


def test_an_export_whose_spread_is_another_is_kept_aside_and_fails(tmp_path, monkeypatch):
    policy = small_policy(make_task("Pendulum-v1").task, output_kind="gaussian")
    other = policy.copy()
    other.network.get_parameter("heads.0.rows.log_std_layer.bias").data.fill_(1.5)
    whole = onnx_format.make_model
    monkeypatch.setattr(onnx_format, "make_model", lambda onnx, policy, **how: whole(onnx, other, **how))
    with pytest.raises(GateError, match=r"the logarithm of a standard deviation is off by 1\.5, expected 0\.1 at most"):
        export(policy, tmp_path / "a.onnx", **FEW)
    assert (tmp_path / "a.failed.onnx").exists()

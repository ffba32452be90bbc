"""Policies of other libraries in every verb: what their files do not say is asked for once, in one line."""

import json
import warnings

import pytest
import torch
from torch import nn

from tests.cli.conftest import TINY
from tests.kit.commands import run, run_well
from tests.kit.other_libraries import ActorCritic, QNetwork, randomised

CART_POLE = ("--task", "CartPole-v1")


class Balance(nn.Module):
    """Pushes towards where the pole falls."""

    def forward(self, observations):
        lean = observations[:, 2:3] + 0.5 * observations[:, 3:4]
        return torch.cat([-lean, lean], dim=1)


@pytest.fixture
def exported(tmp_path):
    path = tmp_path / "balance.pt2"
    rows = torch.zeros(2, 4)
    torch.export.save(torch.export.export(Balance(), (rows,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), path)
    return path


@pytest.fixture
def q_network(tmp_path):
    network = QNetwork()
    network.network[4] = nn.Linear(10, 2)
    torch.save(randomised(network).state_dict(), tmp_path / "dqn.cleanrl_model")
    return tmp_path / "dqn.cleanrl_model"


@pytest.fixture
def balance_onnx(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    helper = pytest.importorskip("onnx").helper
    import numpy as np
    from onnx import numpy_helper

    from tests.kit.onnx_files import FLOAT, model_of, saved

    weight = numpy_helper.from_array(np.array([[0, 0], [0, 0], [-1, 1], [-0.5, 0.5]], np.float32), "w")
    nodes = [helper.make_node("MatMul", ["obs", "w"], ["scores"])]
    ends = [helper.make_tensor_value_info(name, FLOAT, ["b", size]) for name, size in (("obs", 4), ("scores", 2))]
    return saved(model_of(nodes, ends[:1], ends[1:], [weight]), tmp_path / "balance.onnx")


def test_an_onnx_file_is_collected_distilled_and_compared_with_its_student(balance_onnx, tmp_path):
    said = ("--outputs", "logits")
    data, student = tmp_path / "data", tmp_path / "student"
    collected = run_well("collect", balance_onnx, *CART_POLE, *said, "--num-steps", 600, "--out", data, "--json").json
    run_well("distill", data, *TINY, "--out", student)
    result = run_well(
        "evaluate", student, "--teacher", balance_onnx, *CART_POLE, *said, "--num-episodes", 5, "--json"
    ).json
    teacher = next(policy for policy in result["policies"] if policy["role"] == "teacher")
    assert teacher["policy_hash"] == collected["teacher_hash"]
    assert teacher["mean"] > 400  # by hand, it balances
    # The student's file names its teacher, which needs no more words than its record has.
    again = run_well("evaluate", student, *CART_POLE, "--num-episodes", 5, "--json").json
    assert [policy["role"] for policy in again["policies"]] == [policy["role"] for policy in result["policies"]]


def test_a_policy_of_a_file_acts_as_it_is_told_to_and_its_student_too(balance_onnx, tmp_path):
    said = ("--outputs", "logits", "--behaviour", "sample")
    data, student = tmp_path / "data", tmp_path / "student"
    run_well("collect", balance_onnx, *CART_POLE, *said, "--num-steps", 600, "--out", data)
    run_well("distill", data, *TINY, "--out", student)
    played = ("evaluate", student, *CART_POLE, "--num-episodes", 5)
    result = run_well(*played, "--json").json["policies"]
    # The teacher is found again although its file says nothing of sampling.
    assert [(row["role"], row["behaviour"]) for row in result[:2]] == [("teacher", "sample"), ("student", "sample")]
    greedy = run_well(*played, "--behaviour", "greedy", "--teacher", balance_onnx, "--outputs", "logits", "--json").json
    assert [row["behaviour"] for row in greedy["policies"][:2]] == ["greedy", "greedy"]
    assert greedy["policies"][0]["mean"] > 400 > result[0]["mean"]
    assert run_well("inspect", student, "--behaviour", "greedy", "--json").json["behaviour"] == "greedy"


def test_a_live_teacher_may_be_a_program_that_is_trusted(exported, tmp_path):
    live = ("--num-updates", 20, "--evaluate-period", 10, "--collect-period", 10, "--collect-steps", 600)
    argv = ("distill", "--teacher", exported, *CART_POLE, "--outputs", "logits", "--student", "mlp:8", *live)
    refused = run(*argv, "--out", tmp_path / "out")
    assert refused.code == 1
    assert "is a program, not data" in refused.line
    run_well(*argv, "--trust", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "student.safetensors").is_file()


@pytest.mark.parametrize("kind", ["torch.export", "TorchScript"])
@pytest.mark.parametrize("verb", [("collect", "--num-steps", 600), ("evaluate", "--num-episodes", 5)], ids=["c", "e"])
def test_programs_run_in_no_verb_unless_they_are_trusted(kind, verb, exported, tmp_path):
    path = exported if kind == "torch.export" else tmp_path / "balance.pt"
    if kind == "TorchScript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would rather have its makers export them differently
            torch.jit.trace(Balance(), torch.zeros(2, 4)).save(path)
    name, *options = verb
    argv = (name, path, *CART_POLE, "--outputs", "logits", *options, "--out", tmp_path / "out")
    refused = run(*argv)
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.line.endswith(
        f"{kind} file {path} is a program, not data: loading it runs code that its maker wrote, with all your rights. "
        "If you trust where it came from, add --trust (Python: trust=True). A state dict, an ONNX or a .safetensors "
        "file needs no trust."
    )
    assert not (tmp_path / "out").exists()
    run_well(*argv, "--trust")


@pytest.mark.parametrize("verb", [("collect", "--num-steps", 600), ("evaluate", "--num-episodes", 5)], ids=["c", "e"])
def test_a_teacher_that_answers_no_numbers_while_it_plays_is_named(verb, balance_onnx, tmp_path):
    import onnx

    model = onnx.load(balance_onnx)
    model.graph.node.insert(0, onnx.helper.make_node("Sqrt", ["obs"], ["roots"]))  # of a negative angle
    model.graph.node[1].input[0] = "roots"
    onnx.save(model, balance_onnx)
    name, *options = verb
    argv = (name, balance_onnx, *CART_POLE, "--outputs", "logits", *options, "--quiet", "--out", tmp_path / "out")
    refused = run(*argv)
    assert refused.code == 1
    assert "Policy 'balance' answered logits [nan, nan] to an observation, expected finite numbers." in refused.line
    assert "The observation is finite, so the policy makes them" in refused.line


def test_a_checkpoint_is_evaluated_beside_a_program(q_network, exported):
    argv = ("evaluate", q_network, exported, *CART_POLE, "--trust", "--outputs", "logits", "--num-episodes", 5)
    result = run_well(*argv, "--json").json
    assert [policy["name"] for policy in result["policies"]] == ["dqn", "balance", "random"]
    assert result["policies"][0]["num_parameters"] == 212
    assert result["policies"][1]["num_parameters"] is None


def test_inspect_says_what_a_checkpoint_is(q_network):
    record = run_well("inspect", q_network, "--json").json
    assert (record["kind"], record["name"], record["task"], record["heads"]) == (
        "policy",
        "dqn",
        "unnamed",
        {"unnamed": 2},
    )
    assert record["provenance"]["source"]["algorithm"] == "dqn"
    assert run_well("inspect", q_network, *CART_POLE, "--json").json["task"] == "CartPole-v1"


def test_inspect_says_what_a_program_is_without_running_it(exported):
    record = run_well("inspect", exported, "--json").json
    assert (record["kind"], record["format"], record["heads"]) == ("program", "torch_export", None)
    assert record["note"] == "not loaded: it holds code of its maker. Add --trust if you trust where it came from."
    trusted = run_well("inspect", exported, "--trust", "--outputs", "logits", "--json").json
    assert trusted["heads"] == {"unnamed": 2}
    assert trusted["outputs"] == "logits=output"
    assert "torch_export" in run_well("inspect", exported).stdout


def test_inspect_says_which_words_a_file_needs(balance_onnx):
    record = run_well("inspect", balance_onnx, "--json").json
    assert (record["kind"], record["format"], record["task"]) == ("program", "onnx", None)
    assert record["note"].startswith(
        f"not loaded: ONNX file {balance_onnx} does not say what its outputs are: got scores"
    )
    wrong = run("inspect", balance_onnx, *CART_POLE, "--outputs", "scores")
    assert (wrong.code, wrong.line[:40]) == (2, "rldistill inspect: outputs: got 'scores'"[:40])


def test_inspect_of_an_unread_file_refuses_a_task_that_does_not_exist(balance_onnx):
    failed = run("inspect", balance_onnx, "--task", "CartPol-v1")
    assert failed.code == 2
    assert failed.line.startswith("rldistill inspect: Task 'CartPol-v1' cannot be made")


def test_inspect_says_what_an_onnx_file_is(balance_onnx):
    record = run_well("inspect", balance_onnx, "--outputs", "q_values", *CART_POLE, "--json").json
    assert (record["kind"], record["format"], record["num_parameters"]) == ("program", "onnx", 8)
    assert record["fingerprint"]["observation_shape"] == [4]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--outputs", "scores"], 2, "outputs: got 'scores', expected q_values|logits|gaussian|actions"),
        ([], 2, "does not say what its outputs are: got scores [B, 2], expected --outputs q_values|logits"),
        (["--outputs", "gaussian"], 1, "declared as gaussian, but discrete actions have q_values or logits"),
        (
            ["--outputs", "logits", "--input-scale", "x"],
            2,
            "--input-scale: got 'x', expected a number.",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_told_in_one_line(balance_onnx, tmp_path, argv, code, message):
    result = run("collect", balance_onnx, *CART_POLE, *argv, "--out", tmp_path / "out")
    assert result.code == code
    assert message in result.line
    assert not (tmp_path / "out").exists()


def test_words_about_files_belong_with_a_teacher(files):
    result = run("distill", files / "data", *TINY, "--out", "out", "--outputs", "logits")
    assert (result.code, result.line) == (
        2,
        "rldistill distill: outputs belongs with --teacher, got it with data.",
    )


def test_a_warning_is_one_line(tmp_path):
    path = tmp_path / "model_3.pt"
    model = ActorCritic()
    model.actor[-1], model.std = nn.Linear(8, 1), nn.Parameter(torch.ones(1))
    model.actor[0] = nn.Linear(3, 12)
    torch.save({"model_state_dict": randomised(model).state_dict()}, path)
    result = run("inspect", path, "--task", "Pendulum-v1", "--json")
    assert result.code == 0, result.stderr
    assert result.line.startswith(f"warning: Policy file {path}: rsl_rl's checkpoints do not say their activation")
    assert json.loads(result.stdout)["output_kind"] == "gaussian"
    assert run("inspect", path, "--task", "Pendulum-v1", "--activation", "elu").stderr == ""


def test_the_activation_of_a_script_that_was_changed_goes_with_every_verb(q_network, tmp_path):
    said = (*CART_POLE, "--activation", "tanh")
    described = run_well("inspect", q_network, *said, "--json").json
    assert described["policy_hash"] != run_well("inspect", q_network, *CART_POLE, "--json").json["policy_hash"]
    collected = run_well("collect", q_network, *said, "--num-steps", 600, "--out", tmp_path / "data", "--json").json
    assert collected["teacher_hash"] == described["policy_hash"]
    result = run_well("evaluate", q_network, *said, "--num-episodes", 5, "--json").json
    assert result["policies"][0]["policy_hash"] == described["policy_hash"]


def test_a_teacher_keeps_its_identity_under_another_protocol(q_network, tmp_path):
    run_well("collect", q_network, *CART_POLE, "--num-steps", 600, "--out", tmp_path / "data")
    run_well("distill", tmp_path / "data", *TINY, "--out", tmp_path / "student")
    argv = ("evaluate", tmp_path / "student", "--exploration-epsilon", "0.5", "--num-episodes", 5, "--json")
    assert [policy["role"] for policy in run_well(*argv).json["policies"]] == ["teacher", "student", "random"]


def test_named_statistics_travel_into_the_student(tmp_path):
    import numpy as np

    from rldistill.adapters.load import load_policy
    from tests.kit.other_libraries import PPOContinuous

    network = PPOContinuous()
    network.actor_mean[0], network.actor_mean[4] = nn.Linear(3, 8), nn.Linear(8, 1)
    network.actor_logstd = nn.Parameter(torch.zeros(1, 1))
    torch.save(network.state_dict(), tmp_path / "ppo.cleanrl_model")
    np.savez(tmp_path / "statistics.npz", mean=[0.1, 0.2, 0.3], var=[1.0, 2.0, 30.0])
    said = ("--task", "Pendulum-v1", "--normalizer", tmp_path / "statistics.npz")
    described = run_well("inspect", tmp_path / "ppo.cleanrl_model", *said, "--json").json
    assert described["provenance"]["source"]["normalizer"]["file"] == "statistics.npz"
    run_well("distill", "--teacher", tmp_path / "ppo.cleanrl_model", *said, *TINY, "--out", tmp_path / "student")
    student = load_policy(tmp_path / "student" / "student.safetensors")
    assert student.normalization.mean == (0.1, 0.2, 0.3)
    np.savez(tmp_path / "statistics.npz", mean=[0.1], var=[1.0])
    result = run("inspect", tmp_path / "ppo.cleanrl_model", *said)
    assert result.code == 1
    assert "has statistics of shape [1]" in result.line
    assert "takes 3 numbers" in result.line


@pytest.fixture
def statistics(tmp_path):
    import numpy as np

    np.savez(tmp_path / "statistics.npz", mean=np.zeros(4), var=np.ones(4))
    return tmp_path / "statistics.npz"


@pytest.mark.parametrize(
    "verb",
    [
        ("inspect",),
        ("evaluate", "--num-episodes", 5),
        ("collect", "--num-steps", 600, "--out", "out"),
        ("distill", *TINY, "--out", "out", "--teacher"),
    ],
    ids=["inspect", "evaluate", "collect", "distill"],
)
@pytest.mark.parametrize("word", ["--normalizer", "--activation"])
def test_words_that_a_program_has_no_use_for_are_refused(verb, word, exported, statistics):
    value = statistics if word == "--normalizer" else "tanh"
    result = run(*verb, exported, *CART_POLE, "--trust", "--outputs", "logits", word, value)
    assert (result.code, result.line) == (
        2,
        f"rldistill {verb[0]}: {exported} (torch.export file) takes no {word[2:]}. Leave it out.",
    )


def test_one_of_several_files_takes_the_word_or_it_is_refused(q_network, exported, statistics):
    said = (*CART_POLE, "--trust", "--outputs", "logits", "--num-episodes", 5, "--normalizer", statistics)
    result = run_well("evaluate", q_network, "--teacher", exported, *said, "--json").json
    described = run_well("inspect", q_network, *CART_POLE, "--normalizer", statistics, "--json").json
    assert described["policy_hash"] in [policy.get("policy_hash") for policy in result["policies"]]
    refused = run("evaluate", exported, exported, *said)
    assert (refused.code, refused.line) == (
        2,
        f"rldistill evaluate: normalizer: none of these files takes one: {exported} (torch.export file), "
        f"{exported} (torch.export file). Leave it out.",
    )


def test_inspect_compares_outputs_that_are_said_with_those_of_the_file(q_network):
    refused = run("inspect", q_network, "--outputs", "logits")
    assert (refused.code, refused.line) == (
        2,
        f"rldistill inspect: {q_network} says itself that its outputs are q_values: got outputs='logits'.",
    )


def test_a_teacher_that_was_read_with_words_is_found_again_and_named_with_them(q_network, statistics, tmp_path):
    data, student = tmp_path / "data", tmp_path / "student"
    said = ("--activation", "tanh", "--normalizer", str(statistics))
    collected = run_well("collect", q_network, *CART_POLE, *said, "--num-steps", 600, "--out", data, "--json").json
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["teacher"]["reading"] == {"activation": "tanh", "normalizer": str(statistics)}
    for argv in (("distill", data), ("distill", "--teacher", q_network, *CART_POLE, *said)):
        distilled = run_well(*argv, *TINY, "--out", student, "--overwrite")
        following = distilled.stderr.splitlines()[-1].removeprefix("next: rldistill ").split()
        assert following[2:] == ["--teacher", str(q_network), *said]
        for words in (following, following[:2]):
            result = run_well(*words, "--num-episodes", 5, "--json").json
            assert result["policies"][0]["policy_hash"] == collected["teacher_hash"]


def test_teachers_that_were_read_in_different_ways_are_left_to_the_record_of_their_student():
    from pathlib import Path

    from rldistill.cli.distill import _summary

    likeness = {"held_out_agreement": 0.5}
    teachers = [{"path": "a.pt", "reading": {"activation": "tanh"}}, {"path": "b.pt"}]
    made = {"config": {"online": False}, "tasks": {"A": likeness, "B": likeness}, "teachers": teachers}
    assert _summary(Path("s"), made).splitlines()[-1] == "next: rldistill evaluate s"
    teachers[1]["reading"] = {"activation": "tanh"}
    assert _summary(Path("s"), made).splitlines()[-1] == (
        "next: rldistill evaluate s --teacher a.pt --teacher b.pt --activation tanh"
    )

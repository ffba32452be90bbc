"""Students that remember, and students that see named parts, leave as they play."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import RldistillError, UsageError
from rldistill.exports.c import library
from rldistill.exports.contract import make_contract
from rldistill.exports.formats import Export
from rldistill.exports.names import Names
from rldistill.exports.table import FORMATS
from rldistill.policies import load_policy
from rldistill.sight import Sight
from tests.kit.commands import run, run_well
from tests.kit.cue_env import CUE_TASK, teacher_of_cue
from tests.kit.seen_env import PARTS_TASK, SPANS, VECTOR_TASK
from tests.kit.small_policies import box_task, small_policy

FEW = {"num_episodes": 5, "num_envs": 2, "num_threads": 1}
needs_compiler = pytest.mark.skipif(library.find_compiler() is None, reason="no C compiler is installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cue") / "data"
    rd.collect(teacher_of_cue(), CUE_TASK, num_steps=300, out=folder, num_threads=1, teacher_sees="always")
    return folder


def student_of_cue(network="gru:5"):
    """Return a student that sees the cue once, with weights as they were drawn."""
    sight = Sight(("shown",))
    return small_policy(make_task(CUE_TASK).task, network=network, output_kind="logits", sight=sight)


@pytest.mark.parametrize("out", ["student.onnx", "student.pt", pytest.param("student.c", marks=needs_compiler)])
def test_a_blind_student_that_remembers_plays_its_task_from_its_file(out, tmp_path):
    result = rd.export(student_of_cue(), tmp_path / out, task=CUE_TASK, **FEW)
    assert result.parity.agreement == 1
    policy, copy = (row for row in result.score.policies if row.role != "random")
    assert policy.played.episodes == copy.played.episodes
    contract = json.loads((tmp_path / f"{out}.contract.json").read_text())
    assert [term["name"] for term in contract["observation"]["terms"]] == ["shown"]
    assert [state["name"] for state in contract["states"]] == ["h"]
    assert contract["policy"]["hash"] == student_of_cue().hash


@needs_compiler
@pytest.mark.parametrize("network", ["gru:5", "stack:3+mlp:6"])
def test_int8_is_calibrated_on_whole_episodes(network, data, tmp_path):
    result = rd.export(student_of_cue(network), tmp_path / "a.c", data=data, precision="int8", **FEW)
    assert result.compared_on == f"5 episodes of {data}"
    assert result.parity.agreement >= 0.9
    assert result.parity.num_episodes == 5


@pytest.mark.parametrize(("name", "out"), [("sb3", "a.zip"), ("rsl-rl", "a.pt"), ("torch-export", "a.pt2")])
def test_a_format_without_a_state_refuses_in_a_line(name, out, tmp_path):
    wrong = rf"^--to {name}: policy 'gru:5' remembers \(gru:5 .*\), and such files keep no state. These do: --to onnx, "
    with pytest.raises(RldistillError, match=wrong):
        rd.export(student_of_cue(), tmp_path / out, to=name)


def test_training_with_the_rounding_of_int8_is_refused_where_there_is_a_memory(data, tmp_path):
    with pytest.raises(RldistillError, match=r"^--quantization-aware trains on single observations, and policy"):
        rd.export(student_of_cue(), tmp_path / "a.c", data=data, precision="int8", quantization_aware=True)


def test_a_state_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RldistillError, match=r"^--fits: the policy does not fit: it needs ram"):
        rd.export(student_of_cue("lstm:200"), tmp_path / "a.c", fits="ram=1k")
    assert list(tmp_path.iterdir()) == []


def test_a_student_of_several_parts_is_given_them_side_by_side(tmp_path):
    student = small_policy(make_task(PARTS_TASK).task, sight=Sight(("state", "hint")), output_kind="logits")
    result = rd.export(student, tmp_path / "a.onnx", task=PARTS_TASK, **FEW)
    assert result.parity.agreement == 1
    contract = json.loads((tmp_path / "a.onnx.contract.json").read_text())
    assert contract["observation"]["shape"] == [3]
    assert [(term["name"], term["slice"]) for term in contract["observation"]["terms"]] == [
        ("state", [0, 2]),
        ("hint", [2, 3]),
    ]
    (given,) = onnx.load(tmp_path / "a.onnx").graph.input
    assert given.type.tensor_type.shape.dim[1].dim_value == 3
    assert rd.load_policy(tmp_path / "a.onnx")(np.zeros((2, 3), np.float32))[0].raw.shape == (2, 2)


def test_a_hub_folder_keeps_the_student_with_its_sight(tmp_path):
    student = student_of_cue("mlp:4")
    rd.export(student, tmp_path / "hub", to="hub-folder", task=CUE_TASK, **FEW)
    assert load_policy(tmp_path / "hub" / "policy.safetensors").hash == student.hash


def vector_student():
    spans = {name: tuple(span) if len(span) == 2 else (4, 6) for name, span in SPANS.items()}
    sight = Sight(("state", "hint"), spans)
    return small_policy(make_task(VECTOR_TASK).task, sight=sight, output_kind="logits")


def terms_of(path):
    return [(term["name"], term["slice"]) for term in json.loads(path.read_text())["observation"]["terms"]]


def test_spans_of_a_vector_are_terms_of_the_contract(tmp_path):
    rd.export(vector_student(), tmp_path / "a.onnx", task=VECTOR_TASK, **FEW)
    assert terms_of(tmp_path / "a.onnx.contract.json") == [("state", [0, 2]), ("hint", [2, 3])]


def test_names_of_the_whole_observation_are_those_of_what_is_seen(tmp_path):
    names = {"observation": ["hint", {"name": "noise", "size": 3}, {"name": "x", "unit": "m"}, "y"]}
    (tmp_path / "names.json").write_text(json.dumps(names))
    rd.export(vector_student(), tmp_path / "a.onnx", task=VECTOR_TASK, names=tmp_path / "names.json", **FEW)
    assert terms_of(tmp_path / "a.onnx.contract.json") == [("x", [0, 1]), ("y", [1, 2]), ("hint", [2, 3])]
    across = {"observation": [{"name": "a", "size": 2}, {"name": "b", "size": 4}]}
    (tmp_path / "names.json").write_text(json.dumps(across))
    with pytest.raises(UsageError, match=r"^--names: 'a' is 0:2 of the observation, and policy .* sees 1 of these"):
        rd.export(vector_student(), tmp_path / "b.onnx", task=VECTOR_TASK, names=tmp_path / "names.json", **FEW)


def test_the_command_takes_names_as_distill_does(tmp_path):
    student = small_policy(make_task(VECTOR_TASK).task, output_kind="logits")
    student.save(tmp_path / "student.safetensors")
    words = ["--out", tmp_path / "a.pt", "--task", VECTOR_TASK, "--num-episodes", 1, "--quiet"]
    run_well("export", tmp_path / "student.safetensors", *words, "--names", "noise=1:4,state=4:")
    assert terms_of(tmp_path / "a.pt.contract.json") == [("0:1", [0, 1]), ("noise", [1, 4]), ("state", [4, 6])]
    wrong = run("export", tmp_path / "student.safetensors", *words, "--overwrite", "--names", "noise=1:9")
    assert (wrong.code, wrong.line.partition("names: ")[2]) == (
        2,
        f"got noise=1:9, expected a span of the 6 numbers of task '{VECTOR_TASK}': 0 <= first < end <= 6.",
    )


@pytest.mark.parametrize("mapping", ["clip", "tanh_rescale"])
def test_an_onnx_export_says_itself_in_which_box_its_actions_lie(mapping, tmp_path):
    export = Export(small_policy(box_task(mapping=mapping, high=3.0), output_kind="gaussian"), {})
    export = replace(export, contract=make_contract(export.policy, Names(), None))
    FORMATS["onnx"].write(export, tmp_path / "a.onnx")
    copy, rows = rd.load_policy(tmp_path / "a.onnx"), np.ones((3, 4), np.float32)
    assert copy.tasks[0].fingerprint.action_layout == export.policy.tasks[0].fingerprint.action_layout
    np.testing.assert_allclose(copy.act(rows)[0], export.policy.act(rows)[0], atol=1e-5)

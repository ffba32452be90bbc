"""The teacher that a student's file names: read as it was read then, once, and whatever a stranger's record says."""

import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from rldistill.adapters.load import load_policy
from rldistill.errors import PolicyFileError, TeacherWarning, UsageError
from rldistill.loading.bundled import bundled_teacher
from rldistill.loading.named import PolicyFile, as_policy, entry_of
from rldistill.loading.recorded import recorded_teacher
from rldistill.options.reading import Reading
from rldistill.verbs.collect import collect
from tests.kit.cart_pole import short_cart_pole
from tests.kit.other_libraries import ActorCritic, QNetwork, randomised
from tests.kit.small_policies import box_task, small_policy, vector_task


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(randomised(QNetwork()).state_dict(), tmp_path / "dqn.cleanrl_model")
    return tmp_path / "dqn.cleanrl_model"


@pytest.fixture
def statistics(tmp_path):
    np.savez(tmp_path / "statistics.npz", mean=np.arange(4.0), var=np.arange(1.0, 5.0))
    return tmp_path / "statistics.npz"


def found(path, policy_hash, task, **record):
    student = small_policy().with_provenance({"teacher": {"path": str(path), "hash": policy_hash, **record}})
    return recorded_teacher(student, task, device="cpu")


@pytest.mark.parametrize("changed", [False, True], ids=["the same", "another by now"])
def test_its_file_is_read_once(tmp_path, changed):
    path = tmp_path / "model_3.pt"
    torch.save({"model_state_dict": randomised(ActorCritic()).state_dict()}, path)
    with pytest.warns(TeacherWarning):
        sampling = load_policy(path, task=box_task(), behaviour="sample")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        teacher = found(path, "another" if changed else sampling.hash, box_task())
    assert (None if teacher is None else teacher.behaviour) == (None if changed else "sample")
    assert [warning.category for warning in caught] == [TeacherWarning]


def test_it_is_found_where_the_task_is_played_with_other_settings(checkpoint):
    task = vector_task()
    heavy = replace(task, environment_kwargs={"gravity": -2.0})
    expected = load_policy(checkpoint, task=task)
    record = {"path": str(checkpoint), "hash": expected.hash}
    student = small_policy(task).with_provenance({"teacher": record})
    teacher = recorded_teacher(student, heavy, device="cpu")
    assert teacher is not None and teacher.hash == expected.hash


@pytest.mark.filterwarnings("ignore:.*Q-values, which are no chances")
def test_it_is_read_with_the_words_that_were_said_of_it(checkpoint, statistics):
    said = {"activation": "tanh", "normalizer": str(statistics), "behaviour": "sample"}
    expected = load_policy(checkpoint, task=vector_task(), **said)
    teacher = found(checkpoint, expected.hash, vector_task(), reading=said)
    assert teacher is not None
    assert (teacher.hash, teacher.behaviour) == (expected.hash, "sample")
    assert found(checkpoint, expected.hash, vector_task()) is None
    statistics.unlink()
    assert found(checkpoint, expected.hash, vector_task(), reading=said) is None


@pytest.mark.filterwarnings("ignore:.*Q-values, which are no chances")
def test_outputs_of_a_program_that_no_record_tells_are_found_by_the_hash(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    helper = pytest.importorskip("onnx").helper
    from onnx import numpy_helper

    from tests.kit.onnx_files import FLOAT, model_of, saved

    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, FLOAT, ["b", size]) for name, size in (("obs", 4), ("scores", 3))]
    node = helper.make_node("MatMul", ["obs", "w"], ["scores"])
    path = saved(model_of([node], ends[:1], ends[1:], [weight]), tmp_path / "p.onnx")
    for outputs in ("q_values", "logits"):
        for behaviour in ("greedy", "sample"):
            expected = load_policy(path, task=vector_task(), outputs=outputs, behaviour=behaviour)
            teacher = found(path, expected.hash, vector_task())
            assert (teacher.output_kind, teacher.behaviour) == (outputs, behaviour)


@pytest.mark.parametrize(
    "reading",
    [
        "tanh",
        {"activation": ["tanh"], "outputs": 3, "input_scale": "x", "normalizer": None, "behaviour": {}},
        {"behaviour": "at random"},
        {"trust": True, "unheard": "of"},
        {"normalizer": "pipe"},
        {"normalizer": "\0"},
    ],
)
def test_what_cannot_be_meant_by_a_record_is_passed_over(checkpoint, reading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    expected = load_policy(checkpoint, task=vector_task())
    teacher = found(checkpoint, expected.hash, vector_task(), reading=reading)
    assert teacher is not None
    assert teacher.hash == expected.hash


def test_that_actions_are_parts_of_the_box_is_recorded(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    from tests.kit.onnx_files import mlp_model, saved

    path, task = saved(mlp_model(), tmp_path / "policy.onnx"), box_task(3, high=10.0)
    expected = load_policy(path, task=task, outputs="actions=rescale")
    teacher = found(path, expected.hash, task, reading={"outputs": "actions=rescale"})
    assert teacher is not None and teacher.hash == expected.hash
    assert found(path, expected.hash, task) is None


def test_a_bundled_teacher_is_recorded_without_its_installation_and_found_from_anywhere(tmp_path, monkeypatch):
    teacher = bundled_teacher("pong")
    policy = load_policy(teacher)
    entry = entry_of(policy, PolicyFile(teacher, Reading()))
    assert entry.path == "zoo/pong.safetensors"
    monkeypatch.chdir(tmp_path)
    again = found(entry.path, policy.hash, policy.tasks[0])
    assert again is not None and again.hash == policy.hash


def test_a_record_does_not_make_a_program_trusted(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have its makers export them differently
        torch.jit.trace(QNetwork(), torch.zeros(2, 4)).save(tmp_path / "p.pt")
    said = {"outputs": "q_values"}
    expected = load_policy(tmp_path / "p.pt", trust=True, task=vector_task(), **said)
    assert found(tmp_path / "p.pt", expected.hash, vector_task(), reading={"trust": True, **said}) is None


def test_what_is_no_policy_is_refused_with_what_makes_one():
    with pytest.raises(UsageError) as caught:
        as_policy(torch.nn.Linear(4, 2), device="cpu")
    assert str(caught.value) == (
        "policy: got a Linear, expected a policy or its file. load_policy makes a policy of a module or a function."
    )


def test_a_model_of_stable_baselines_in_memory_is_refused_with_how_to_save_it():
    model = type("PPO", (), {"policy": torch.nn.Linear(4, 2), "save": None})()
    policy = type("MlpPolicy", (QNetwork,), {"__module__": "stable_baselines3.common.policies"})()
    for name, load in {"PPO": lambda: load_policy(model), "MlpPolicy": lambda: load_policy(policy)}.items():
        with pytest.raises(UsageError, match=rf"got a {name}, .* model\.save\('model\.zip'\) and env\.save"):
            load()
    with pytest.raises(UsageError, match=r"got a PPO, .* model\.save\('model\.zip'\)"):
        as_policy(model, device="cpu")


def test_a_module_with_a_part_called_policy_is_loaded():
    module = QNetwork()
    module.policy, module.save = torch.nn.Linear(4, 2), None
    assert load_policy(module, task=vector_task(), outputs="q_values").output_kind == "q_values"


def test_a_dataset_is_no_run_folder(tmp_path):
    dataset = tmp_path / "data"
    task = short_cart_pole()
    collect(small_policy(task.task, network="mlp:8"), task, num_steps=30, out=dataset, num_envs=2)
    with pytest.raises(PolicyFileError) as caught:
        as_policy(dataset, device="cpu")
    assert str(caught.value) == (
        f"{dataset} is a dataset, expected a policy file or a run folder. To learn from it: "
        f"rldistill distill {dataset}, without --teacher."
    )

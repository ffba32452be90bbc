"""Whatever is wrong is told in one line, with the right exit code, and nothing is lost or left behind.

2: decidable from the command line and the configuration alone. 1: files, data, a failed gate.
"""

import errno
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from rldistill.cli.main import VERBS
from rldistill.data import Dataset, DatasetWriter
from rldistill.errors import DiskFullError, TeacherWarning
from rldistill.storage import folder_lock
from tests.cli.conftest import TINY
from tests.kit.cart_pole import collect_cart_pole, hand_made_teacher
from tests.kit.commands import run, run_alone
from tests.kit.interruptions import full_disk
from tests.kit.payout import constant_policy, payout_task
from tests.kit.small_policies import image_task, small_policy


def refused(code: int, *argv: object) -> str:
    """Check how a command fails, in words and as JSON, and return its message."""
    words = run(*argv)
    assert words.code == code, words.stderr
    assert words.stdout == ""
    prefix = f"rldistill {argv[0]}: " if argv[0] in VERBS else "rldistill: "
    assert words.line.startswith(prefix)
    assert "RLDISTILL_TRACEBACK" not in words.line, "a bug, not a message"
    message = words.line.removeprefix(prefix)
    data = run(*argv, "--json")
    assert (data.code, data.json, data.line) == (code, {"error": message}, words.line)
    return message


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path):
    yield
    assert not (tmp_path / "out").exists(), "a command that was refused left its --out behind"


# Wrong usage: exit 2.


def test_an_unknown_verb_is_answered_with_the_nearest():
    assert refused(2, "distil") == (
        "Unknown verb: got 'distil', expected one of quickstart, shrink, train-teacher, collect, distill, evaluate, "
        "export, reproduce, inspect. Did you mean 'distill'?"
    )
    assert "Did you mean" not in refused(2, "frobnicate")
    assert "Did you mean 'train-teacher'?" in refused(2, "train_teacher")


def test_no_verb_is_answered_with_the_list_of_them():
    result = run()
    assert (result.code, result.stderr) == (2, "")
    assert "rldistill VERB --help" in result.stdout


def test_an_unknown_option_is_answered_with_the_nearest():
    assert refused(2, "distill", "d", "--studnet", "net3", "--out", "out") == (
        "unknown option --studnet. Did you mean --student or --students? `rldistill distill --help` lists them all."
    )
    assert "Did you mean" not in refused(2, "distill", "d", "--xyz=3", "--out", "out")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["distill", "d", "--num-updates", "many", "--out", "out"],
            "--num-updates: got 'many', expected a whole number.",
        ),
        (["distill", "d", "--num-updates"], "--num-updates: got nothing, expected a value."),
        (
            ["train-teacher", "CartPole-v1", "-x"],
            "got CartPole-v1, -x, which no option takes. `rldistill train-teacher ",
        ),
        (
            ["collect", "--teacher", "t"],
            "--teacher is no option of collect: its value stands alone, as in `rldistill c",
        ),
        (["evaluate", "--policies=t"], "--policies is no option of evaluate: its value stands alone, as in `rldistill"),
        (["distill", "d"], "--out"),
        (
            ["distill", "--out", "out"],
            "missing argument: expected a dataset folder, --teacher FILE or --online, ",
        ),
        (["collect", "--out", "out"], "missing argument: expected a teacher's policy file, such as in `rldistill col"),
        (["evaluate"], "missing argument: expected at least one policy file or run folder"),
        (["inspect"], "missing argument: expected a policy file, a dataset folder, a run folder or a preset"),
        (["distill", "a", "b", "--out", "out", "--task-order", "no"], "task_order: got 'no', expected in_turn, mixed"),
        (
            ["distill", "a", "--out", "out", "--temperature", "pong=1,2"],
            "temperature: got '2' in 'pong=1,2', expected T",
        ),
        (["distill", "d", "--out", "out", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["collect", "t", "--out", "out", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["evaluate", "t", "--resume"], "unknown option --resume."),
        (["inspect", "t", "--overwrite"], "unknown option --overwrite."),
        (["inspect", "t", "--dry-run"], "--dry-run belongs with --verify"),
        (["quickstart", "--resume"], "unknown option --resume."),
        (["distill", "d", "--out", "out", "--temperature", "0"], "temperature must stay > 0, got '0'"),
        (["distill", "d", "--out", "out", "--temperature=-1"], "temperature must stay > 0, got '-1'"),
        (["distill", "d", "--out", "out", "--temperature", "linear:0.2-"], "put the value in quotes."),
        (["distill", "d", "--out", "out", "--loss", "nll", "--temperature", "1"], "'nll', which takes none. Leave it"),
        (
            ["distill", "d", "--out", "out", "--loss-params", "0.5"],
            "loss_params: got '0.5' in '0.5', expected PARAMETER=VALUE pairs such as delta=0.5.",
        ),
        (["distill", "d", "--out", "out", "--loss", "q_mse", "--loss-params", "delta=2"], "'q_mse', which takes none."),
        (["distill", "d", "--out", "out", "--loss", "mean_huber", "--loss-params", "delta=-1"], "delta must stay > 0"),
        (["distill", "d", "--out", "out", "--loss", "kl"], "loss: got 'kl', expected one of nll, q_mse"),
        (["distill", "d", "--out", "out", "--held-out-fraction", "0.05"], "held_out_fraction must be at least 0.1"),
        (["distill", "d", "--out", "out", "--student", "net33"], "Did you mean 'net3'?"),
        (["distill", "d", "--out", "out", "--learning-rate=-1"], "learning_rate must be > 0"),
        (["distill", "d", "--out", "out", "--optimizer", "sgd"], "expected adam or rmsprop."),
        (["distill", "d", "--out", "out", "--seed=-1"], "seed must be 0 or more, got -1."),
        (["distill", "d", "--out", "out", "--device", "tpu"], "device: got 'tpu', expected auto, cpu or cuda."),
        (["collect", "t", "--out", "out", "--num-steps", "0"], "num_steps must be 1 or more, got 0."),
        (["collect", "t", "--out", "out", "--num-envs", "0"], "num_envs must lie in [1, 4096], got 0."),
        (["collect", "t", "--out", "out", "--num-envs", "1000000"], "num_envs must lie in [1, 4096], got 1000000."),
        (["collect", "t", "--out", "out", "--num-threads=-1"], "num_threads must lie in [0, 1024], got -1."),
        (["collect", "t", "--out", "out", "--seed=-1"], "seed must be 0 or more, got -1."),
        (["evaluate", "t", "--behaviour", "best"], "behaviour: got 'best', expected greedy or sample."),
        (["distill", "d", "--out", "out", "--behaviour", "sample"], "behaviour belongs with --teacher, got it"),
        (["distill", "--teacher", "t", "--out", "out", "--temperature", "auto"], "temperature: auto is taken from the"),
        (
            ["distill", "--online", "--task", "CartPole-v1", "--out", "out", "--temperature", "auto"],
            "one that still le",
        ),
        (
            ["distill", "--teacher", "t", "--out", "out", "--std", "fixed"],
            "std: fixed is the teacher's own spread in a",
        ),
        (["evaluate", "t", "--num-episodes", "0"], "num_episodes must be 1 or more, got 0."),
        *(
            (
                ["evaluate", "t", f"--require-retention={value}"],
                f"require_retention must lie in [0, 2], got {value}. It i",
            )
            for value in ("nan", "inf", "-0.5", "95")
        ),
        (
            ["evaluate", "t", "--task", "pong"],
            "Task 'pong' cannot be made: Atari games have a prefix. Did you mean ata",
        ),
        (["evaluate", "t", "--task", "atari:pong,ms_pacman"], "Did you mean atari:ms_pacman?"),
        (["inspect", "net3", "--heads", "3,x"], "heads: got '3,x', expected positive integers such as 3,3,6."),
        (["inspect", "net3", "--heads", "²"], "heads: got '²', expected positive integers such as 3,3,6."),
        (["inspect", "mlp:64"], "the size of an mlp depends on its task"),
        (["inspect", "f", "--num-episodes", "5"], "num_episodes belongs with --verify, which plays the policy."),
        (["inspect", "f", "--device", "cpu"], "device belongs with --verify, which plays the policy."),
        (["inspect", "f", "--env-kwargs", '{"a": 1}'], "they belong with --task or --verify."),
        (["inspect", "f", "--against", "g", "--verify", "--full"], "full and verify does not apply. Leave it out."),
        (["inspect", "net3", "--trust", "--task", "t"], "trust and task is for policy files, net3 is none. Leave"),
        (["collect", "t", "--out", ""], "out: got '', expected a path."),
        (["evaluate", "t", ""], "policies: got '', expected a path."),
        (["evaluate", "t", "--teacher", ""], "teacher: got '', expected a path."),
        (
            ["collect", "t", "--out", "out", "--names", "a=0:2"],
            "names belong with teacher_sees or choose, which say what they are for.",
        ),
        (["evaluate", "t", "--names", "a=0:2"], "names belong with teacher_sees or choose, which say"),
        (["distill", "d", "--out", "out", "--names", "a=0:2"], "names belong with student_sees, which says what they"),
        (
            ["distill", "--teacher", "t", "--out", "out", "--names", "a=0:2"],
            "names belong with student_sees, teacher_sees or choose, which say",
        ),
        (["evaluate", "t", "--input-scale", "0"], "input_scale must be > 0, got 0.0."),
        (
            ["distill", "d", "--out", "out", "--feature-weight", "inf"],
            "feature_weight must be a finite number, 0 or mo",
        ),
        (["train-teacher", "--out", "out", "--task", ""], "task"),
    ],
)
def test_what_the_command_line_alone_shows_to_be_wrong_is_wrong_usage(argv, message):
    assert message in refused(2, *argv)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "atari:pon",
            "Unknown Atari game: got 'pon', expected ale-py's name of a game, such as space_invaders. Did you ",
        ),
        ("atari:SpaceInvaders", "Did you mean atari:space_invaders?"),
        ("atari:ms-pacman", "Did you mean atari:ms_pacman?"),
        ("atari:combat", "Atari game 'combat' needs two players, which is not supported. Among those that play alone:"),
        ("CartPole-v9", "Task 'CartPole-v9' cannot be made"),
        ("NoSuchGame-v0", "Task 'NoSuchGame-v0' cannot be made"),
        ("no_such_module:Env-v0", "module 'no_such_module' cannot be imported"),
    ],
)
def test_a_task_that_cannot_be_played_is_wrong_usage_whatever_the_files_say(task, message):
    assert message in refused(2, "collect", "no-file", "--task", task, "--out", "out")
    assert message in refused(2, "evaluate", "no-file", "--task", task)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("CartPole-v1", "{", "env_kwargs is not JSON: got '{' ("),
        ("CartPole-v1", "frame_skip=4", "env_kwargs is not JSON: got 'frame_skip=4' ("),
        ("CartPole-v1", "[4]", "env_kwargs: got '[4]', expected a JSON object such as '{\"frame_skip\": 4}'."),
        ("CartPole-v1", '{"gravity": Infinity}', "env_kwargs: got gravity=inf, expected a finite number"),
        ("CartPole-v1", '{"gravitas": 1}', "Task 'CartPole-v1' does not take these keyword arguments (gravitas)"),
        ("atari:pong", '{"frameskip": 4}', "Unknown Atari option: got 'frameskip', expected one of height, width"),
        ("atari:pong", '{"frame_skip": "4"}', "Atari option 'frame_skip': got '4', expected a int."),
        ("atari:pong", '{"max_frames": 0}', "Atari option 'max_frames': got 0, expected a positive number."),
        ("atari:pong", '{"exploration_epsilon": 2}', "exploration_epsilon must lie in [0, 1], got 2."),
    ],
)
def test_settings_of_a_task_that_do_not_apply_are_wrong_usage(task, settings, message):
    for verb in (["collect", "no-file", "--out", "out"], ["evaluate", "no-file"]):
        assert message in refused(2, *verb, "--task", task, "--env-kwargs", settings)


def test_settings_without_a_tasks_name_are_not_ignored(files):
    message = refused(2, "evaluate", files / "run", "--env-kwargs", '{"max_episode_steps": 3}')
    assert "belong with a task's name" in message


def test_a_gate_without_a_teacher_is_wrong_usage_before_anything_is_played(files):
    message = refused(2, "evaluate", files / "teacher.safetensors", "--require-retention", "0.9")
    assert message == "--require-retention compares with a teacher: name it with --teacher FILE."


def test_a_gate_without_a_student_is_refused_before_anything_is_played(files):
    teacher = files / "teacher.safetensors"
    Path("copy.safetensors").write_bytes(teacher.read_bytes())
    for policy, code in ((teacher, 2), ("copy.safetensors", 1)):
        message = refused(code, "evaluate", policy, "--teacher", teacher, "--require-retention", "0.9")
        assert message == "--require-retention got no student: every policy named is the teacher itself."


def test_exploration_out_of_range_is_wrong_usage(files):
    message = "exploration_epsilon must lie in [0, 1], got 2.0."
    teacher = files / "teacher.safetensors"
    assert refused(2, "evaluate", teacher, "--exploration-epsilon", "2") == message
    assert refused(2, "collect", teacher, "--exploration-epsilon", "2", "--out", "out") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_updates = ", "Configuration c.toml is not TOML: "),
        ("num_updates = 3\nnum-updates = 4", "num_updates stands there twice, once as 'num-updates'. Leave one out."),
        ('task_weights = {a = "x"}', "task_weights: got 'x', expected a number."),
        ('num_update = 3\nout = "out"', "Configuration c.toml: unknown key 'num_update'. Did you mean 'num_updates'?"),
        ('qqq = 3\nout = "out"', "Configuration c.toml: unknown key 'qqq', expected one of activation, add_head, "),
        ('num_updates = "many"\nout = "out"', "--num-updates: got 'many', expected a whole number."),
        ("num_updates = 1.5", "num_updates: got 1.5, expected a whole number."),
        ('num_updates = 0\nout = "out"', "num_updates must be 1 or more, got 0."),
        ('temperature = 0.0\nout = "out"', "temperature must stay > 0, got 0.0"),
        ('resume = true\nout = "out"', "Configuration c.toml: unknown key 'resume'"),
        ('student = ["net3", "net2"]\nout = "out"', "student: got ['net3', 'net2'], expected a network's name"),
        ('out = "out"\n[student]\nname = "net3"', "student: got {'name': 'net3'}, expected a network's name"),
        ("[distil]", "Configuration c.toml: unknown section 'distil'. Did you mean 'distill'?"),
        ("[d]", "Configuration c.toml: unknown section 'd', expected one of collect, distill, evaluate, "),
        ("[distill]\nnum_update = 3", "Configuration c.toml, section distill: unknown key 'num_update'. Did you mean"),
        ("[distill.distill]", "Configuration c.toml, section distill: unknown key 'distill'"),
    ],
)
def test_a_configuration_that_is_wrong_is_wrong_usage(text, message):
    Path("c.toml").write_text(text)
    assert message in refused(2, "distill", "d", "--config", "c.toml")
    assert message in refused(2, "distill", "d", "--config=c.toml")


def test_a_configuration_that_is_not_there_is_wrong_usage():
    assert refused(2, "distill", "d", "--out", "out", "--config", "no.toml") == (
        "Configuration no.toml cannot be read: No such file or directory."
    )
    Path("binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "is not TOML" in refused(2, "distill", "d", "--out", "out", "--config", "binary.toml")


# A policy file that cannot be trusted: exit 1.


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip_a_weight(path: Path) -> None:
    flip(path, -3)


def _flip_the_description(path: Path) -> None:
    flip(path, path.read_bytes().index(b"hand-made"))


def _write_words(path: Path) -> None:
    path.write_text("three years of work")


def _write_foreign_weights(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)


def _make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "found nothing there, expected a "),
        (_truncate, "cannot be read: "),
        (_flip_a_weight, "was altered: its content has SHA-256 "),
        (_flip_the_description, "was altered: its content has SHA-256 "),
        (_write_words, "cannot be read: "),
        (_write_foreign_weights, "in Python: rd.load_policy(path, module=…, task=…, outputs=…)."),
        (_make_a_folder, "holds neither student.safetensors nor last_policy.safetensors"),
    ],
)
def test_a_policy_file_that_cannot_be_trusted_is_refused_by_every_verb(files, tmp_path, damage, message):
    teacher = tmp_path / "teacher.safetensors"
    shutil.copy(files / "teacher.safetensors", teacher)
    damage(teacher)
    if damage is not _make_a_folder:
        init = ["distill", files / "data", *TINY, "--out", "out", "--init-from", teacher]
        assert message in refused(1, *init)
    if damage is not Path.unlink:
        assert message in refused(1, "inspect", teacher)
    for argv in (
        ["collect", teacher, "--out", "out"],
        ["evaluate", teacher],
        ["evaluate", files / "run", "--teacher", teacher],
        ["evaluate", files / "run", "--teacher", teacher, "--require-retention", "0.9"],
    ):
        got = refused(1, *argv)
        assert message in got
        assert str(teacher) in got


def test_nothing_to_inspect_says_what_there_could_have_been():
    assert refused(1, "inspect", "net33") == (
        "Nothing to inspect: net33 is neither a file, a folder, nor a network "
        "(dqn, net1, net2, net3, multitask3, multitask10, conv:8-8-8:32). Did you mean 'net3'?"
    )


@pytest.mark.parametrize("verb", ["collect", "evaluate", "inspect"])
def test_a_policy_for_other_actions_or_other_preprocessing_is_refused_with_both_sides(tmp_path, verb):
    out = ["--out", "out"] if verb == "collect" else []
    constant_policy(payout_task(), 1).save(tmp_path / "three.safetensors")
    message = refused(1, verb, "three.safetensors", "--task", "CartPole-v1", *out)
    assert message.startswith("Policy 'always 1' (made for tests.kit.payout:Payout-v0) does not fit task 'CartPole-v1'")
    assert "observation_shape: [1] against [4]; action_layout: discrete [3] against discrete [2]" in message
    small_policy(image_task(frame_skip=5), network="conv:4:4", name="fast").save(tmp_path / "fast.safetensors")
    message = refused(1, verb, "fast.safetensors", "--task", "atari:pong", *out)
    assert message.startswith(
        "Policy 'fast' (made for atari:pong) does not fit task 'atari:pong': frame_skip: 5 against 4"
    )
    message = refused(1, verb, "fast.safetensors", "--task", "atari:breakout", *out)
    assert "action_layout: discrete [6] against discrete [4]" in message


# A dataset that cannot be trusted: exit 1.


@pytest.fixture
def data(files, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(files / "data", tmp_path / "d"))


def change_manifest(data: Path, **values: object) -> None:
    path = data / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _remove_the_manifest(data: Path) -> None:
    (data / "manifest.json").unlink()


def _cut_the_manifest(data: Path) -> None:
    path = data / "manifest.json"
    path.write_bytes(path.read_bytes()[:-50])


def _remove_a_shard(data: Path) -> None:
    next(data.glob("shard-*")).unlink()


def _flip_a_shard(data: Path) -> None:
    path = next(data.glob("shard-*"))
    flip(path, path.stat().st_size // 2)


def _make_the_schema_newer(data: Path) -> None:
    change_manifest(data, schema_version=3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "d is not a dataset: it does not exist. Give the folder that `rldistill collect` wrote."),
        (_remove_the_manifest, "d is not a dataset: it has no manifest.json."),
        (_cut_the_manifest, "cannot be read: its manifest.json is damaged"),
        (_remove_a_shard, "shard-000000.safetensors is missing"),
        (_flip_a_shard, "shard-000000.safetensors is damaged: its checksum is not the one the manifest lists."),
        (
            _make_the_schema_newer,
            "has schema version 3, this rldistill reads up to 2. It was written by a newer version",
        ),
    ],
)
def test_a_dataset_that_cannot_be_trusted_is_refused(data, damage, message):
    damage(data)
    assert message in refused(1, "distill", "d", *TINY, "--out", "out")


def test_a_dataset_that_may_not_be_read_is_not_called_damaged(data, monkeypatch):
    def shut(path, *_arguments):  # root may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("rldistill.data.manifest.read_file", shut)
    assert refused(1, "distill", "d", *TINY, "--out", "out") == (
        "Dataset d: its manifest.json cannot be read: Permission denied. Check what you may do there."
    )


@pytest.mark.parametrize("damage", [_remove_a_shard, _flip_a_shard, _make_the_schema_newer])
def test_a_collection_does_not_go_on_with_a_dataset_that_cannot_be_trusted(files, data, damage):
    damage(data)
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.name != ".lock"}
    settings = ["--num-steps", "900", "--exploration-epsilon", "0.3"]
    refused(1, "collect", files / "teacher.safetensors", *settings, "--out", "d", "--resume")
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.name != ".lock"} == before


def test_an_empty_dataset_is_refused(files):
    with DatasetWriter.create(Path("d"), Dataset.open(files / "data").provenance, target_num_steps=10):
        pass
    assert refused(1, "distill", "d", *TINY, "--out", "out") == (
        "Dataset d is empty: it lists no step. Collect some: run its collection with --resume."
    )


def test_a_dataset_with_too_few_episodes_is_refused():
    teacher = hand_made_teacher()
    teacher.save("teacher.safetensors")
    run("collect", "teacher.safetensors", "--num-steps", "40", "--num-envs", "4", "--out", "d", "--quiet")
    assert "Dataset d holds 4 episodes, but 5 are held out" in refused(1, "distill", "d", *TINY, "--out", "out")


def test_a_target_that_is_not_finite_is_named(files):
    dataset = Dataset.open(files / "data")
    with DatasetWriter.create(Path("d"), dataset.provenance, target_num_steps=10) as writer:
        writer._check = lambda *_: None  # the writer refuses such values, too
        values = {name: dataset.field(name)[:8] for name in dataset.provenance.step_fields}
        values["q_values"] = np.where(np.arange(16).reshape(8, 2) == 9, np.inf, values["q_values"]).astype(np.float32)
        writer.append(np.arange(8), dataset.observations(np.arange(8)), values)
    message = refused(1, "distill", "d", *TINY, "--out", "out")
    assert message.startswith("Dataset d holds a q_values that is not finite: [")
    assert "in shard shard-000000.safetensors, episode 4, step 0." in message


def test_a_loss_that_does_not_fit_the_teachers_outputs_is_refused(tmp_path):
    collect_cart_pole(tmp_path / "d", hand_made_teacher(kind="logits"), num_steps=300)
    assert refused(1, "distill", "d", *TINY, "--loss", "q_mse", "--out", "out") == (
        "loss: 'q_mse' fits q_values, the teacher gives logits. Use one of nll, sharpened_kl, softened_kl, reverse_kl."
    )


def test_a_network_that_does_not_fit_the_observations_is_refused(files):
    assert "takes images [C, H, W]" in refused(1, "distill", files / "data", "--student", "net3", "--out", "out")


def test_a_dataset_that_another_process_writes_is_refused(files, data):
    with folder_lock(data):
        settings = ["--num-steps", "900", "--exploration-epsilon", "0.3", "--out", "d"]
        message = refused(1, "collect", files / "teacher.safetensors", *settings, "--resume")
        assert message.startswith("d is being written by another process (id ")
        assert message.endswith("Wait for it, or choose another --out.")
        assert "by another process" in refused(1, "collect", files / "teacher.safetensors", *settings, "--overwrite")


def test_a_run_that_another_process_writes_is_refused(files, tmp_path):
    shutil.copytree(files / "run", tmp_path / "r")
    with folder_lock(tmp_path / "r"):
        assert "by another process" in refused(1, "distill", files / "data", *TINY, "--out", "r", "--resume")


# --out.


@pytest.mark.parametrize("flag", [[], ["--resume"], ["--overwrite"]])
def test_an_out_that_is_not_ours_is_left_alone(files, tmp_path, flag):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("three years")
    for argv in (["collect", files / "teacher.safetensors"], ["distill", files / "data", *TINY]):
        for out in ("mine", "mine/thesis.tex"):
            assert "Choose another --out." in refused(1, *argv, "--out", out, *flag)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]
    assert Path("mine/thesis.tex").read_text() == "three years"


def test_an_evaluation_is_not_written_over_something_else(files):
    Path("thesis.tex").write_text("three years")
    assert refused(1, "evaluate", files / "run", "--out", "thesis.tex") == (
        "--out thesis.tex exists and is not an evaluation. Choose another --out."
    )
    assert Path("thesis.tex").read_text() == "three years"


def test_an_out_of_ours_is_neither_lost_nor_mixed(files, data, tmp_path):
    hint = "Add --resume to go on, --overwrite to delete it (in Python resume=True, overwrite=True), or choose another."
    assert hint in refused(1, "collect", files / "teacher.safetensors", "--out", "d")
    shutil.copytree(files / "run", tmp_path / "r")
    assert hint in refused(1, "distill", files / "data", *TINY, "--out", "r")
    message = refused(1, "distill", files / "data", *TINY, "--seed", "5", "--out", "r", "--resume")
    assert "the run began with another configuration: seed was 0, is 5. Use the same, or --overwrite." in message
    message = refused(1, "collect", files / "teacher.safetensors", "--seed", "5", "--out", "d", "--resume")
    assert "seed: 0 against 5" in message


def test_an_out_that_cannot_be_written_is_one_line(files):
    Path("file").write_text("")
    for argv in (["collect", files / "teacher.safetensors"], ["distill", files / "data", *TINY]):
        assert "--out file/out cannot be a folder: file is a file." in refused(1, *argv, "--out", "file/out")


def test_a_full_disk_is_one_line(files, tmp_path):
    settings = ["--num-steps", "2000", "--out", "d", "--quiet"]
    with full_disk(3000):
        collected = run("collect", files / "teacher.safetensors", *settings)
        distilled = run("distill", files / "data", *TINY, "--out", "r", "--quiet")
        evaluated = run("evaluate", files / "run", "--num-episodes", "30", "--out", "e.json", "--quiet")
    for result, verb in ((collected, "collect"), (distilled, "distill")):
        assert result.code == 1
        assert result.line.startswith(f"rldistill {verb}: Writing ")
        assert "File too large. What was reported written before is intact." in result.line
    assert (evaluated.code, evaluated.stdout) == (1, "")
    assert evaluated.line == (
        "rldistill evaluate: --out e.json cannot be written: File too large. Nothing was played. Make room there, or "
        "choose another --out."
    )
    assert not list(tmp_path.rglob("*.tmp"))
    assert not Path("e.json").exists()


# The gate.


def test_a_gate_that_stays_shut_exits_with_1_and_still_gives_the_result():
    task = payout_task()
    for action, name in ((1, "student"), (2, "teacher")):
        constant_policy(task, action, name).save(f"{name}.safetensors")
    argv = ["evaluate", "student.safetensors", "--teacher", "teacher.safetensors", "--num-episodes", "5"]
    line = (
        "rldistill evaluate: Retention gate failed: lower bound (one-sided 95 %) of student 0.500, required 0.51. "
        "More episodes are unlikely to help, a better student will (docs/worse-than-teacher.md in "
        "the checkout of rldistill): student keeps 0.500."
    )
    result = run(*argv, "--require-retention", "0.51", "--quiet")
    *warnings, last = result.stderr.splitlines()
    assert (result.code, last) == (1, line)
    assert all("are copies" in warning for warning in warnings), "five times the same episode, which --quiet says too"
    assert "retention [95 %]" in result.stdout, "the table is the result: shown all the same"
    data = run(*argv, "--require-retention", "0.51", "--json")
    assert data.json["policies"][1]["retention"] == 0.5
    assert data.json["error"] == line.removeprefix("rldistill evaluate: ")
    passed = run(*argv, "--require-retention", "0.5", "--quiet")
    assert passed.code == 0
    assert passed.stdout.splitlines()[-1] == (
        "Retention gate passed: lower bound (one-sided 95 %) of student 0.500, required 0.5. "
        "Of 5 episodes a bound claims a little too much: gate on 30 or more."
    )
    for_programs = run(*argv, "--require-retention", "0.5", "--json", "--quiet")
    assert "error" not in for_programs.json
    assert for_programs.stderr.splitlines()[-1] == passed.stdout.splitlines()[-1]


def test_a_result_that_cannot_be_written_in_the_end_is_printed(monkeypatch):
    def full(_path, _data):
        raise DiskFullError("no") from OSError(28, "No space left on device")

    constant_policy(payout_task(), 1).save("student.safetensors")
    monkeypatch.setattr("rldistill.evaluation.file.write_json", full)
    words = run("evaluate", "student.safetensors", "--num-episodes", "5", "--out", "e.json")
    assert words.code == 1
    assert "student      6 [6, 6]" in words.stdout
    assert words.stderr.splitlines()[-1].startswith("rldistill evaluate: --out e.json could not be written: No space")
    assert "--resume" not in words.stderr
    data = run("evaluate", "student.safetensors", "--num-episodes", "5", "--out", "e.json", "--json")
    assert (data.json["policies"][0]["mean"], "could not be written" in data.json["error"]) == (6, True)


# From a shell.


def test_a_traceback_is_never_what_a_user_sees(files):
    result = run_alone("evaluate", files / "no-such-file")
    assert (result.code, result.stdout) == (1, "")
    assert result.line.startswith("rldistill evaluate: Policy file ")


def test_an_error_that_nobody_expected_is_one_line_too_and_its_traceback_can_be_had(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("rldistill.cli.inspect.run", fail)
    monkeypatch.delenv("RLDISTILL_TRACEBACK", raising=False)
    result = run("inspect", "net3", "--json")
    assert result.code == 1
    assert result.line == (
        "rldistill inspect: unexpected ZeroDivisionError: division by zero. Set RLDISTILL_TRACEBACK=1 to see where."
    )
    assert set(result.json) == {"error"}
    monkeypatch.setenv("RLDISTILL_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run("inspect", "net3")


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 745. GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
    ids=["NumPy", "torch"],
)
def test_a_memory_that_is_too_small_is_said_with_what_to_do(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("rldistill.cli.inspect.run", fail)
    monkeypatch.delenv("RLDISTILL_TRACEBACK", raising=False)
    result = run("inspect", "net3")
    assert (result.code, result.line) == (
        1,
        f"rldistill inspect: out of memory. Choose a smaller network, --batch-size or --num-envs ({error}).",
    )


def test_warnings_come_without_colours(monkeypatch):
    def tell(*_):
        warnings.warn("\x1b[33mWARN: the environment is out of date\x1b[0m", TeacherWarning, stacklevel=1)

    monkeypatch.setattr("rldistill.cli.inspect.run", tell)
    assert run("inspect", "net3").stderr == "warning: the environment is out of date\n"

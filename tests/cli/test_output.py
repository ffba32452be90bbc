"""What goes to stdout, what to stderr, what nowhere; configurations that come back the same."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rldistill.cli import output
from rldistill.cli.main import VERBS
from rldistill.envs import make_task
from rldistill.policies import load_policy
from tests.cli.conftest import TINY
from tests.kit.commands import run, run_alone, run_well
from tests.kit.seen_env import PARTS_TASK, student_of_hint
from tests.kit.small_policies import image_task, small_policy


@pytest.fixture
def verbs(files) -> dict[str, list[object]]:
    """One small command for each verb that reads or makes a policy's data."""
    return {
        "collect": ["collect", files / "teacher.safetensors", "--num-steps", "200", "--num-envs", "2", "--out", "d"],
        "distill": ["distill", files / "data", *TINY, "--out", "r"],
        "evaluate": ["evaluate", files / "run", "--num-episodes", "5"],
        "inspect": ["inspect", files / "run"],
    }


EXPECTED_KEYS = {
    "collect": {"path", "num_steps", "num_episodes", "num_interrupted", "num_bytes", "teacher_hash"},
    "distill": {"student", "policy_hash", "num_updates", "held_out_agreement"},
    "evaluate": {"schema_version", "task", "fingerprint", "protocol", "seed", "policies"},
    "inspect": {"kind", "name", "num_parameters", "num_bytes", "num_macs", "heads", "task", "fingerprint"},
}


@pytest.mark.parametrize("verb", EXPECTED_KEYS)
def test_json_is_exactly_one_object_on_stdout(verbs, verb):
    result = run_well(*verbs[verb], "--json")
    assert EXPECTED_KEYS[verb] <= result.json.keys()
    json.dumps(result.json, allow_nan=False)


def test_what_an_environment_prints_does_not_come_among_results(files):
    command = ("collect", files / "teacher.safetensors", "--num-steps", "50", "--json", "--quiet")
    printed = ("from Python", "from C", "to the file")
    result = run_alone(*command, "--out", "d", prepare="tests.kit.commands:print_in_environments")
    assert (result.code, result.json["num_steps"]) == (0, 50)
    assert all(text in result.stderr for text in printed)
    result = run_alone(*command, "--out", "d", prepare="tests.kit.commands:print_in_environments")
    assert (result.code, result.json.keys()) == (1, {"error"}), "it exists: nothing was played"


@pytest.mark.parametrize("verb", ["collect", "distill"])
def test_quiet_says_nothing_at_all_when_all_is_well(verbs, verb):
    result = run_well(*verbs[verb], *(["--learning-rate", "1e-2"] if verb == "distill" else []), "--quiet")
    assert (result.stdout, result.stderr) == ("", "")


def test_quiet_holds_for_the_emulator_too(tmp_path):
    from rldistill.envs import make_task

    task = make_task("atari:pong", {"max_frames": 40}).task
    small_policy(task, network="conv:4:4").save("teacher.safetensors")
    # A process of its own: ale-py writes past Python's stdout and stderr.
    result = run_alone("collect", "teacher.safetensors", "--num-steps", 30, "--num-envs", 2, "--out", "d", "--quiet")
    assert (result.code, result.stdout, result.stderr) == (0, "", "")


def test_quiet_still_warns(files):
    result = run_well("distill", files / "data", *TINY, "--learning-rate", "1e-46", "--out", "r", "--quiet")
    starts = [line.partition(" updates")[0] for line in result.stderr.splitlines()]
    assert starts == ["warning: after 10", "warning: after 20"]


@pytest.mark.parametrize("verb", ["collect", "distill"])
def test_words_for_people_go_to_stderr_and_say_what_is_next(verbs, verb):
    result = run_well(*verbs[verb])
    assert result.stdout == ""
    following = {
        "collect": "next: rldistill distill d --out runs/d",
        "distill": "next: rldistill evaluate r",
    }
    assert following[verb] in result.stderr


def following(result):
    """Return the command that a verb says is next."""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("next: ")]
    return shlex.split(line.removeprefix("next: rldistill "))


def test_what_is_next_names_a_task_of_a_module_which_no_file_may_have_imported():
    student_of_hint().save("p.safetensors")
    few = ["--num-envs", "2", "--task", PARTS_TASK]
    settings = [*TINY, "--evaluate-episodes", "0"]
    collected = following(run_well("collect", "p.safetensors", *few, "--num-steps", "300", "--out", "d"))
    assert collected == ["distill", "d", "--task", PARTS_TASK, "--out", "runs/d"]
    live = ["--teacher", "p.safetensors", *few, "--collect-steps", "200"]
    for source in (["d", "--task", PARTS_TASK], live):
        evaluate = following(run_well("distill", *source, *settings, "--out", "r", "--overwrite"))
        assert evaluate == ["evaluate", "r", "--task", PARTS_TASK, "--teacher", "p.safetensors"]
        run_well(*evaluate, "--num-episodes", "2")
    train = ["train-teacher", *few, "--network", "mlp:8", "--num-steps", "200", "--out", "t"]
    assert following(run_well(*train))[-2:] == ["--task", PARTS_TASK]


def test_what_is_next_has_the_settings_of_a_task_that_is_named_and_no_module_that_the_user_did_not():
    assert output.task_words([PARTS_TASK], {"size": 3}) == f"--task {PARTS_TASK} --env-kwargs '{{\"size\": 3}}'"
    assert output.task_words([PARTS_TASK, "CartPole-v1"]) == f"--task {PARTS_TASK},CartPole-v1"
    for names in (["CartPole-v1"], ["atari:pong"], ["python:f"], ["evil:X-v0"], [PARTS_TASK, "evil:X-v0"]):
        assert output.task_words(names) == ""


def test_the_table_of_an_evaluation_is_its_result_also_when_it_is_to_be_quiet(verbs):
    loud, quiet = run_well(*verbs["evaluate"]), run_well(*verbs["evaluate"], "--quiet")
    assert quiet.stderr == ""
    assert "evaluate random" in loud.stderr
    for result in (loud, quiet):
        lines = result.stdout.splitlines()
        assert lines[0].startswith("CartPole-v1: 5 episodes each, seed 0, exploration ε 0")
        assert [line.split()[0] for line in lines if "[" in line] == [
            *("policy", "teacher", "run", "random"),
            *("student", "run"),
        ]
        assert "Retention gate" not in result.stdout


def test_inspecting_is_reading_so_its_words_are_the_result(files):
    result = run_well("inspect", files / "run")
    assert result.stderr == ""
    first, *others = result.stdout.split("\n\n")
    lines = dict(line.split(maxsplit=1) for line in first.splitlines())
    assert (lines["kind"], lines["name"], lines["num_parameters"]) == ("policy", "mlp:8", "58")
    assert [block.splitlines()[0] for block in others] == [
        *("fingerprint", "fingerprint.action_layout", "architecture", "provenance", "provenance.dataset"),
        *("provenance.teacher", "provenance.versions"),
    ]
    assert "settings of the run, with --full" in others[3]
    assert max(len(line) for line in result.stdout.splitlines() if str(files) not in line) <= 80
    assert "provenance.config\n" in run_well("inspect", files / "run", "--full").stdout
    assert run_well("inspect", files / "data").stdout.startswith("kind ")


def test_text_of_a_strangers_file_reaches_no_terminal_raw():
    small_policy().with_provenance({"\x07": ["\x1b]0;title", "\nkind  dataset"]}).save("odd.safetensors")
    text = run_well("inspect", "odd.safetensors").stdout
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "\\x1b]0;title, kind dataset" in text


def test_what_inspect_says_of_a_dataset_a_run_and_a_preset(files):
    dataset = run_well("inspect", files / "data", "--json").json
    assert (dataset["kind"], dataset["num_steps"], dataset["task"]) == ("dataset", 600, "CartPole-v1")
    assert (dataset["exploration_epsilon"], dataset["is_complete"]) == (0.3, True)
    assert (
        dataset["teacher"]["hash"] == run_well("inspect", files / "teacher.safetensors", "--json").json["policy_hash"]
    )
    student = run_well("inspect", files / "run", "--json").json
    assert student["heads"] == {"CartPole-v1": 2}
    assert student["provenance"]["verb"] == "distill"
    # Rusu et al. 2015: the sizes of the networks, here with 18 actions.
    for name, num_macs in (("net3", 2_134_400), ("dqn", 9_352_192)):
        assert run_well("inspect", name, "--json").json["num_macs"] == num_macs
    heads = run_well("inspect", "net3", "--heads", "3,6", "--json").json["heads"]
    assert list(heads.values()) == [3, 6]


def test_inspect_shows_every_head_with_its_task():
    tasks = [image_task(), image_task(4, name="atari:breakout"), image_task(3, name="atari:freeway")]
    small_policy(*tasks, network="conv:4:4").save("three.safetensors")
    data = run_well("inspect", "three.safetensors", "--json").json
    assert data["heads"] == {"atari:pong": 6, "atari:breakout": 4, "atari:freeway": 3}
    assert (data["task"], data["fingerprint"]) == ("atari:pong", tasks[0].fingerprint.to_dict())
    assert data["tasks"] == [
        {"task": task.name, "fingerprint": task.fingerprint.to_dict(), "behaviour": "greedy"} for task in tasks
    ]
    text = run_well("inspect", "three.safetensors").stdout
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert ["heads", "atari:pong 6, atari:breakout 4, atari:freeway 3"] in lines
    assert [line[1] for line in lines if line[0] == "task"] == [task.name for task in tasks]
    shown = [line[1] for line in lines if line[0] == "action_set"]
    assert ["LEFT" in value.split(", ") for value in shown] == [True, True, False]


def test_the_result_of_a_distillation_can_be_read_by_a_program(files):
    result = run_well("distill", files / "data", *TINY, "--out", "r", "--json").json
    student = load_policy(result["student"])
    assert result["policy_hash"] == student.hash
    assert result["num_updates"] == 20
    assert result["held_out_agreement"] == student.spec.provenance["held_out_agreement"]


@pytest.mark.parametrize("command", [["--version"], ["inspect", "net3", "--json"]])
def test_a_result_without_an_output_to_go_to_is_told_in_one_line(command):
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "rldistill", *command]
    result = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    verb = "" if command[0].startswith("-") else f" {command[0]}"
    line = f"rldistill{verb}: the result cannot be written to standard output: Bad file descriptor.\n"
    assert (result.returncode, result.stderr) == (1, line)


# --dry-run and --config.


@pytest.mark.parametrize("verb", ["collect", "distill", "evaluate"])
def test_a_dry_run_prints_a_configuration_and_touches_nothing(verbs, verb, tmp_path):
    result = run_well(*verbs[verb], "--dry-run")
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []
    config = tomllib.loads(result.stdout)
    Path("c.toml").write_text(result.stdout)
    assert tomllib.loads(run_well(verb, "--config", "c.toml", "--dry-run").stdout) == config


def test_a_dry_run_shows_what_auto_stands_for(verbs):
    config = tomllib.loads(run_well(*verbs["distill"], "--precision", "auto", "--dry-run").stdout)
    assert config["precision"] in ("float32", "bfloat16")
    assert config["device"] in ("cpu", "cuda")
    assert config["num_threads"] >= 1


def test_the_dry_run_of_a_collection_shows_the_task_and_the_environments_that_it_would_take(files):
    config = run_well("collect", files / "teacher.safetensors", "--out", "d", "--dry-run", "--json").json
    assert (config["task"], config["env_kwargs"]) == ("CartPole-v1", {"max_episode_steps": 40})
    assert (config["num_steps"], config["num_envs"]) == (50_000, 25)
    task = make_task("atari:pong", {"sticky_action_probability": 0.25, "exploration_epsilon": 0.5}).task
    small_policy(task, network="conv:4-4:4").save("pong.safetensors")
    config = run_well("collect", "pong.safetensors", "--out", "d", "--dry-run", "--json").json
    assert (config["task"], config["env_kwargs"]) == ("atari:pong", {"sticky_action_probability": 0.25})
    assert config["num_envs"] == 16


@pytest.mark.parametrize("verb", ["evaluate", "shrink", "quickstart"])
def test_a_dry_run_shows_the_task_that_the_file_names_as_it_would_be_played(files, verb):
    named = ["--teacher"] if verb == "quickstart" else []
    command = [verb, *named, files / "teacher.safetensors", "--dry-run", "--json"]
    config = run_well(*command, *(["--out", "o"] if verb != "evaluate" else [])).json
    settings = {"task": "CartPole-v1", "env_kwargs": {"max_episode_steps": 40}}
    # quickstart has no option for settings, and plays what the file says.
    assert {name: config[name] for name in settings if name in config} == ({} if named else settings)
    small_policy(make_task("atari:pong").task, network="conv:4-4:4").save("pong.safetensors")
    assert run_well(verb, *named, "pong.safetensors", "--dry-run", "--json").json["task"] == "atari:pong"


def test_the_dry_run_of_an_experiment_shows_its_options_beside_its_jobs():
    command = ["reproduce", "losses", "--budget", "smoke", "--out", "r", "--dry-run"]
    config, shown = run_well(*command, "--json").json, tomllib.loads(run_well(*command).stdout)
    jobs = config.pop("jobs")
    assert all(job.keys() == {"stage", "name", "done"} for job in jobs)
    assert config == shown
    assert (config["experiment"], config["games"], config["seeds"]) == ("losses", ["pong"], 1)


def test_a_dry_run_refuses_what_the_run_would_refuse(files):
    assert run("distill", files / "data", "--temperature", "0", "--out", "r", "--dry-run").code == 2
    assert run("collect", "t", "--task", "atari:combat", "--out", "d", "--dry-run").code == 2


@pytest.mark.parametrize("settings", [[], ["--loss", "q_mse", "--optimizer", "rmsprop"], ["--precision", "auto"]])
def test_the_configuration_of_a_finished_run_gives_the_same_student_again(files, settings):
    first = run_well("distill", files / "data", *TINY, *settings, "--seed", "3", "--out", "r", "--json").json
    again = run_well("distill", "--config", "r/config.toml", "--out", "again", "--json").json
    assert again["policy_hash"] == first["policy_hash"]
    assert Path("again/student.safetensors").read_bytes() == Path("r/student.safetensors").read_bytes()
    configs = [tomllib.loads(Path(name, "config.toml").read_text()) for name in ("r", "again")]
    assert configs[0] | {"out": "again"} == configs[1]


def test_the_first_line_of_a_configuration_says_how_to_run_it(files):
    run_well("distill", files / "data", *TINY, "--out", "r", "--quiet")
    assert Path("r/config.toml").read_text().splitlines()[0] == "# rldistill distill --config config.toml"


def test_options_on_the_command_line_override_the_file(files):
    Path("c.toml").write_text(f'data = ["{files / "data"}"]\nout = "r"\nseed = 7\nbatch_size = 16\nstudent = "mlp:8"\n')
    config = tomllib.loads(run_well("distill", "--config", "c.toml", "--seed", "8", "--dry-run").stdout)
    assert (config["seed"], config["batch_size"], config["student"]) == (8, 16, "mlp:8")
    shutil.copytree(files / "data", "other")
    config = tomllib.loads(run_well("distill", "other", "--seed", "8", "--config=c.toml", "--dry-run").stdout)
    assert (config["seed"], config["data"]) == (8, ["other"])


def test_numbers_lists_and_texts_survive_a_file(files):
    shutil.copy(files / "teacher.safetensors", "a")
    shutil.copy(files / "run" / "student.safetensors", "b c")
    Path("c.toml").write_text(
        'out = "e.json"\nrequire_retention = 0.5\npolicies = ["a", "b c"]\nteacher = "a"\n'
        'env_kwargs = \'{"max_episode_steps": 9}\'\ntask = "CartPole-v1"\n'
    )
    config = tomllib.loads(run_well("evaluate", "--config", "c.toml", "--dry-run").stdout)
    assert config["require_retention"] == 0.5
    assert config["policies"] == ["a", "b c"]
    assert config["env_kwargs"] == {"max_episode_steps": 9}


def test_one_file_serves_several_verbs_and_may_name_one_value_where_several_could_stand(files):
    Path("c.toml").write_text(
        f"""
        seed = 5
        [collect]
        teacher = "{files / "teacher.safetensors"}"
        task = "CartPole-v1"
        num-steps = 1e4
        out = "d"
        [collect.env_kwargs]
        max_episode_steps = 9
        [distill]
        data = "{files / "data"}"
        student = "mlp:8"
        seed = 6
        out = "r"
        [train-teacher]
        task = "CartPole-v1"
        [train_teacher]
        out = "t"
        network = "mlp:8"
        """
    )
    found = {
        verb: run_well(verb, "--config", "c.toml", "--dry-run", "--json").json
        for verb in ("collect", "distill", "train-teacher")
    }
    collect, distill, train = found.values()
    assert (collect["num_steps"], collect["seed"], collect["env_kwargs"]) == (10_000, 5, {"max_episode_steps": 9})
    assert (distill["data"], distill["seed"]) == ([str(files / "data")], 6)
    assert (train["task"], train["out"], train["seed"]) == ("CartPole-v1", "t", 5)


@pytest.mark.parametrize("text", ["1e3", "1_000", "1000.0", "1000"])
def test_whole_numbers_may_be_written_as_people_do(files, text):
    for words in (["--num-updates", text], [f"--num-updates={text}"]):
        result = run_well("distill", files / "data", "--student", "mlp:8", "--out", "r", *words, "--dry-run", "--json")
        assert result.json["num_updates"] == 1000


def test_a_dry_run_checks_what_can_be_checked_without_playing(files, tmp_path):
    teacher, data = files / "teacher.safetensors", files / "data"
    cases = [
        (["collect", "no.zip", "--out", "d"], "no.zip"),
        (["collect", teacher, "--task", "Acrobot-v1", "--out", "d"], "Policy"),
        (["collect", teacher, "--out", data], f"--out {data} already holds a dataset."),
        (["distill", "--teacher", "no.zip", "--out", "r"], "no.zip"),
        (["distill", "no", "--out", "r"], "no is not a dataset: it does not exist."),
        (["distill", data, "--student", "net3", "--out", "r"], "Network 'net3' takes images"),
        (["distill", data, data, "--student", "mlp:8", "--out", "r"], f"{data} and {data} are both"),
        (
            ["distill", data, "--student", "mlp:8", "--out", files / "run"],
            f"--out {files / 'run'} already holds a run.",
        ),
        (["distill", data, "--student", "mlp:8", "--init-from", "no", "--out", "r"], "Policy file no"),
        (
            ["distill", data, *TINY, "--seed", "7", "--resume", "--out", files / "run"],
            "configuration: seed was 0, is 7",
        ),
        (["train-teacher", "--task", "CartPole-v1", "--init-from", "no", "--network", "mlp:8", "--out", "t"], "Policy"),
        (["evaluate", "no.safetensors"], "no.safetensors"),
        (["evaluate", teacher, "--teacher", "no.safetensors"], "no.safetensors"),
        (["evaluate", teacher, "--task", "Acrobot-v1"], "Policy"),
        (["quickstart", "--teacher", "no.safetensors"], "no.safetensors"),
    ]
    for argv, message in cases:
        result = run(*argv, "--dry-run")
        assert (result.code, result.stdout) == (1, ""), (argv, result)
        assert message in result.line
        assert "RLDISTILL_TRACEBACK" not in result.line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file", "file/x/y"])
@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("collect", ["teacher.safetensors"]),
        ("distill", ["data", *TINY]),
        ("distill", ["data", "--students", "mlp:8", "--seeds", "0,1"]),
        ("train-teacher", ["--task", "CartPole-v1", "--network", "mlp:8"]),
        ("shrink", ["teacher.safetensors", "--task", "CartPole-v1"]),
        ("quickstart", ["--teacher", "teacher.safetensors", "--task", "CartPole-v1"]),
        ("reproduce", ["losses", "--budget", "smoke"]),
    ],
)
def test_an_out_that_can_be_no_folder_is_refused_before_anything_is_played(files, verb, options, out):
    Path("file").touch()
    given = [files / word if word in ("data", "teacher.safetensors") else word for word in options]
    said = "is a file, expected a folder" if out == "file" else "cannot be a folder: file is a file"
    for further in ([], ["--dry-run"]):
        result = run(verb, *given, "--out", out, *further)
        assert (result.code, result.line) == (1, f"rldistill {verb}: --out {out} {said}. Choose another --out.")


def test_an_out_where_nothing_may_be_written_is_refused_before_anything_is_played(files, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _mode: str(path) != "shut")  # root may write everywhere
    Path("shut").mkdir()
    for further in ([], ["--dry-run"]):
        result = run("shrink", files / "teacher.safetensors", "--task", "CartPole-v1", "--out", "shut/x", *further)
        assert (result.code, result.line) == (
            1,
            "rldistill shrink: --out shut/x cannot be made: nothing may be written in shut. Choose another --out.",
        )


@pytest.mark.parametrize("among_others", [True, False])
def test_a_teacher_that_is_taken_for_a_dataset_is_told_so(files, among_others):
    shutil.copy(files / "teacher.safetensors", "b.safetensors")
    other = ["--teacher", str(files / "teacher.safetensors")] * among_others
    for name in ("b.safetensors", str(files / "run")):
        result = run("distill", name, *other, "--out", "r")
        assert (result.code, result.line) == (
            2,
            f"rldistill distill: {name} is taken for a dataset, which is a folder that `rldistill collect` wrote. Name "
            f"each teacher with an option of its own: {' '.join([*other, '--teacher', name])}, and its task by --task "
            "where its file does not say it.",
        )


def test_a_collection_from_a_file_is_the_same_collection(files):
    settings = ["--num-steps", "200", "--seed", "4", "--exploration-epsilon", "0.25"]
    dry = run_well("collect", files / "teacher.safetensors", *settings, "--out", "a", "--dry-run")
    Path("c.toml").write_text(dry.stdout)
    run_well("collect", "--config", "c.toml", "--quiet")
    run_well("collect", files / "teacher.safetensors", *settings, "--out", "b", "--quiet")
    assert Path("a/shard-000000.safetensors").read_bytes() == Path("b/shard-000000.safetensors").read_bytes()


# --overwrite and --resume through the command line.


def test_overwriting_begins_anew_and_resuming_goes_on(files):
    command = ["distill", files / "data", *TINY, "--out", "r", "--json"]
    first = run_well(*command).json
    assert run_well(*command, "--resume").json == first
    assert run_well(*command, "--seed", "1", "--overwrite").json["policy_hash"] != first["policy_hash"]
    assert run_well(*command, "--overwrite").json == first


def test_a_collection_can_be_resumed_and_replaced(files):
    command = ["collect", files / "teacher.safetensors", "--out", "d", "--json"]
    assert run_well(*command, "--num-steps", "100").json["num_steps"] == 100
    assert run_well(*command, "--num-steps", "150", "--resume").json["num_steps"] == 150
    assert run_well(*command, "--num-steps", "120", "--overwrite").json["num_steps"] == 120


def test_help_says_nothing_of_options_that_may_be_left_out_but_what_they_take():
    for verb in VERBS:
        result = run(verb, "--help")
        assert result.code == 0 and "None" not in result.stdout, verb
    widths = {len(line) for line in run("collect", "--help").stdout.splitlines() if line.startswith("│")}
    assert len(widths) == 1, "the box keeps its edge"


def test_resuming_where_nothing_is_says_that_it_begins_anew(verbs, tmp_path):
    (tmp_path / "r").mkdir()
    for verb in ("collect", "distill"):
        first = run_well(*verbs[verb], "--resume")
        out = verbs[verb][-1]
        assert f"--resume: nothing in {out} yet, beginning anew\n" in first.stderr
        assert "beginning anew" not in run_well(*verbs[verb], "--resume").stderr


def test_a_collection_without_a_whole_episode_is_warned_about(files, tmp_path):
    command = ["collect", files / "teacher.safetensors", "--num-envs", 16, "--out", tmp_path / "d"]
    result = run_well(*command, "--num-steps", 160)
    assert (
        "warning: no episode came to its end: 160 steps in 16 environments are too few. Raise --num-steps, or lower "
        "--num-envs.\n"
    ) in result.stderr
    assert "no episode" not in run_well(*command, "--num-steps", 1600, "--resume").stderr


@pytest.mark.parametrize(
    ("verb", "said", "line"),
    [
        ("shrink", "stopped; nothing is kept.", "stopped; nothing is kept."),
        ("collect", "stopped; 4 steps are written. Go on with --resume.", None),
        ("collect", "", "interrupted; what was reported written is there. Add --resume to go on."),
        (
            "quickstart",
            "stopped; 4 steps are written. Go on with --resume.",
            "interrupted; what was reported written is there. Run the same command again.",
        ),
        (
            "quickstart",
            "stopped; no evaluation is written.",
            "interrupted; what was reported written is there. Run the same command again.",
        ),
        ("evaluate", "stopped; no evaluation is written.", None),
        ("inspect", "", "interrupted."),
    ],
)
def test_a_stop_says_what_it_keeps_and_names_resume_only_where_a_verb_has_it(monkeypatch, verb, said, line):
    def stopped(_arguments):
        raise KeyboardInterrupt(said)

    monkeypatch.setattr(sys.modules["rldistill.cli.main"], "_run", stopped)
    result = run(verb)
    assert (result.code, result.line) == (130, f"rldistill {verb}: {line or said}")

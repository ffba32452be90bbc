"""What a collection stores is what happened, and a stop anywhere changes nothing of it."""

import dataclasses
import json
import signal
import time

import numpy as np
import pytest

from rldistill.data import Dataset, load_manifest
from rldistill.envs import make_task
from rldistill.errors import LockedError, MismatchError, OutputExistsError, UsageError
from rldistill.events import MessageEvent
from rldistill.policies import TorchPolicy
from rldistill.seeding import episode_seed, stream_generator, stream_seed
from rldistill.storage import folder_lock
from rldistill.verbs.collect import collect
from tests.kit.cart_pole import hand_made_teacher, saved_teacher, short_cart_pole
from tests.kit.commands import options, run_alone, start
from tests.kit.episodes import assert_prefixes, assert_same_episodes, read_episodes
from tests.kit.interruptions import StopAfter
from tests.kit.small_policies import small_policy
from tests.kit.unruly_envs import FORGETFUL_TASK, Forgetful

SMALL_SHARDS = "tests.kit.commands:write_small_shards"
A_LITTLE = "tests.kit.commands:collect_a_little"
NUM_KILLS = 20


def num_listed(path) -> int:
    return load_manifest(path).num_steps if (path / "manifest.json").exists() else 0


# Pong and Freeway are cut off by the limit; in Breakout some episodes lose all balls before it.
@pytest.mark.parametrize(
    ("game", "max_frames", "epsilon"), [("pong", 320, 0.3), ("breakout", 640, 1.0), ("freeway", 400, 0.05)]
)
def test_every_stored_stack_is_what_the_environment_returned_across_a_kill_and_a_resume(
    tmp_path, game, max_frames, epsilon
):
    task = make_task(f"atari:{game}", {"max_frames": max_frames})
    policy = small_policy(task.task, network="conv:4-4:8")
    policy.save(tmp_path / "teacher.safetensors")
    command = ["collect", tmp_path / "teacher.safetensors", "--quiet", "--resume", "--num-envs", 3, "--num-threads", 1]
    command += options(num_steps=600, out=tmp_path / "d", seed=5, exploration_epsilon=epsilon)
    first = start(*command, prepare=A_LITTLE)
    first.wait_until(lambda: num_listed(tmp_path / "d") >= 200)
    first.kill()
    before = num_listed(tmp_path / "d")
    assert 200 <= before < 600
    assert run_alone(*command, prepare=SMALL_SHARDS).code == 0
    assert Dataset.open(tmp_path / "d").num_steps == 600

    episodes = read_episodes(tmp_path / "d")
    envs = task.make_envs(1, 1)
    num_ends = 0
    for number, episode in episodes.items():
        observation = envs.reset([0], [episode_seed(stream_seed(5, "collection"), number)])[0]
        observations = []
        for index, action in enumerate(episode["action"]):
            observations.append(observation)
            step = envs.step(np.array([action], np.int64))
            observation = step.observations[0]
            got = (episode["reward"][index], episode["terminated"][index], episode["truncated"][index])
            assert got == (step.rewards[0], step.terminated[0], step.truncated[0])
        np.testing.assert_array_equal(episode["observation"], np.stack(observations), err_msg=f"episode {number}")
        if step.ended[0]:
            np.testing.assert_array_equal(episode["last_observation"], observation)
        assert step.ended[0] == ("last_observation" in episode)
        num_ends += bool(step.ended[0])
        targets = policy(episode["observation"])[0].raw.numpy()
        np.testing.assert_array_equal(episode["q_values"], targets, err_msg=f"targets of episode {number}")
    envs.close()
    assert num_ends >= 3


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A teacher's file, and what a collection that never stops stores: 24,001 steps by 16 environments."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    teacher = saved_teacher(folder)
    collect(teacher, num_steps=NUM_STEPS, out=folder / "d", exploration_epsilon=0.3, seed=2)
    return teacher, read_episodes(folder / "d")


NUM_STEPS = 24_001  # not a multiple of 16: in the last lockstep only one environment's step is kept


def command_for(teacher, out):
    return ["collect", teacher, "--resume", *options(num_steps=NUM_STEPS, out=out, exploration_epsilon=0.3, seed=2)]


def test_killed_at_twenty_random_moments_a_collection_is_step_for_step_what_it_would_have_been(tmp_path, uninterrupted):
    teacher, expected = uninterrupted
    out = tmp_path / "d"
    command = command_for(teacher, out)
    rng = stream_generator(0, "kills")
    listed = []
    for num_shards in rng.integers(0, 4, NUM_KILLS).tolist():
        before = num_listed(out)
        collection = start(*command, prepare=A_LITTLE)
        collection.wait_until(lambda least=before + 100 * num_shards: num_listed(out) >= least)
        time.sleep(rng.uniform(0, 0.05))  # the moment between two shards is left to chance
        collection.kill()
        listed.append(num_listed(out))
        if listed[-1]:
            Dataset.open(out)
    assert listed == sorted(listed), "what was reported written is never taken back"
    assert len(set(listed)) > 3
    assert listed[-1] < NUM_STEPS, "the last kill came too late to be one"
    assert run_alone(*command, prepare=SMALL_SHARDS).code == 0
    assert_same_episodes(read_episodes(out), expected)
    manifest = load_manifest(out)
    assert manifest.is_complete
    assert len(list(out.glob("*.safetensors"))) == len(manifest.shards)
    assert not list(out.glob(".*.tmp"))


def test_ctrl_c_exits_with_130_and_the_rest_can_be_collected_later(tmp_path, uninterrupted):
    teacher, expected = uninterrupted
    out = tmp_path / "d"
    collection = start(*command_for(teacher, out), prepare=A_LITTLE)
    collection.wait_until(lambda: num_listed(out) > 200)
    result = collection.interrupt()
    assert result.code == 130
    last = result.stderr.splitlines()[-1]
    assert last == f"rldistill collect: stopped; {num_listed(out):,} steps are written. Go on with --resume."
    assert "Traceback" not in result.stderr
    assert run_alone(*command_for(teacher, out)).code == 0
    assert_same_episodes(read_episodes(out), expected)


def test_sigterm_stops_as_ctrl_c_does(tmp_path, uninterrupted):
    teacher, _ = uninterrupted
    collection = start(*command_for(teacher, tmp_path / "d"), "--json", prepare=A_LITTLE)
    collection.wait_until(lambda: num_listed(tmp_path / "d") > 200)
    result = collection.interrupt(signal.SIGTERM)
    assert result.code == 130
    assert set(result.json) == {"error"}


def test_a_full_disk_is_one_line_and_the_collection_can_go_on(tmp_path, uninterrupted):
    teacher, expected = uninterrupted
    out = tmp_path / "d"
    # Not even the smallest shards of 8,192 steps fit; those of 100 do, until their list outgrows the limit.
    result = run_alone(*command_for(teacher, out), "--quiet", prepare=SMALL_SHARDS, max_file_bytes=20_000)
    assert result.code == 1
    assert result.line.startswith(f"rldistill collect: Writing {out}/")
    assert "Free some space and run the same command again, with --resume if it has that option." in result.line
    before = read_episodes(out)
    assert num_listed(out) > 1000
    assert_prefixes(before, expected)
    assert run_alone(*command_for(teacher, out)).code == 0
    assert_same_episodes(read_episodes(out), expected)


@pytest.mark.parametrize("num_envs", [3, 40])
def test_resumed_with_another_number_of_environments_each_episode_is_the_same(tmp_path, uninterrupted, num_envs):
    teacher, expected = uninterrupted
    settings = {"out": tmp_path / "d", "exploration_epsilon": 0.3, "seed": 2}
    with pytest.raises(KeyboardInterrupt):
        collect(teacher, num_steps=2000, callbacks=[StopAfter(50)], **settings)
    summary = collect(teacher, num_steps=2000, num_envs=num_envs, resume=True, **settings)
    episodes = read_episodes(tmp_path / "d")
    assert sum(len(episode["action"]) for episode in episodes.values()) == summary.num_steps == 2000
    assert_prefixes(episodes, expected)
    # Three environments take up three of the 16 running episodes; the other 13 are interrupted, not lost.
    assert summary.num_interrupted == sum("last_observation" not in episode for episode in episodes.values())
    assert summary.num_episodes + summary.num_interrupted == len(episodes)


def test_a_stop_at_any_step_leaves_the_same_episodes(tmp_path):
    teacher = hand_made_teacher()
    settings = {"num_steps": 203, "exploration_epsilon": 0.5, "num_envs": 5}
    collect(teacher, out=tmp_path / "whole", **settings)
    expected = read_episodes(tmp_path / "whole")
    for num_reports in (1, 2, 39, 40, 41):
        out = tmp_path / f"stopped at {num_reports}"
        with pytest.raises(KeyboardInterrupt):
            collect(teacher, out=out, callbacks=[StopAfter(num_reports)], **settings)
        assert num_listed(out) == min(5 * num_reports, 203)
        collect(teacher, out=out, resume=True, **settings)
        assert_same_episodes(read_episodes(out), expected)


def test_a_finished_collection_stays_as_it_is_when_it_is_resumed(tmp_path):
    collect(hand_made_teacher(), num_steps=100, out=tmp_path / "d")
    before = {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir() if path.name != ".lock"}
    told = []
    summary = collect(hand_made_teacher(), num_steps=100, out=tmp_path / "d", resume=True, callbacks=[told.append])
    assert summary.num_steps == 100
    assert told == [MessageEvent(f"{tmp_path / 'd'} already holds 100 steps")]
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir() if path.name != ".lock"}


def test_a_collection_can_be_made_longer(tmp_path):
    collect(hand_made_teacher(), num_steps=100, out=tmp_path / "d")
    assert collect(hand_made_teacher(), num_steps=250, out=tmp_path / "d", resume=True).num_steps == 250
    assert Dataset.open(tmp_path / "d").num_steps == 250


def test_an_unfinished_collection_goes_on_to_the_number_of_steps_that_it_was_begun_with(tmp_path):
    settings = {"out": tmp_path / "d", "exploration_epsilon": 0.5, "seed": 1}
    with pytest.raises(KeyboardInterrupt):
        collect(hand_made_teacher(), num_steps=2000, num_envs=40, callbacks=[StopAfter(10)], **settings)
    begun = load_manifest(tmp_path / "d")
    with pytest.raises(MismatchError, match=r"^--num-steps 300: .*/d was begun with 2000 and is not finished\. Give"):
        collect(hand_made_teacher(), num_steps=300, resume=True, **settings)
    assert load_manifest(tmp_path / "d") == begun
    told = []
    with pytest.raises(KeyboardInterrupt):
        collect(hand_made_teacher(), resume=True, callbacks=[told.append, StopAfter(1)], **settings)
    # Two thousand steps are work for 16 environments, but 40 episodes are under way.
    assert load_manifest(tmp_path / "d").num_interrupted == 0
    assert not [event for event in told if isinstance(event, MessageEvent) and event.level == "warning"]
    lost = len(load_manifest(tmp_path / "d").running) - 4
    summary = collect(hand_made_teacher(), num_envs=4, resume=True, callbacks=[told.append], **settings)
    text = f"{lost} of them are given up: there are only 4 environments"
    assert MessageEvent(text, "warning") in told
    assert summary.num_steps == load_manifest(tmp_path / "d").target_num_steps == 2000
    assert collect(hand_made_teacher(), resume=True, **settings).num_steps == 2000


def test_an_environment_that_forgets_its_seed_is_reported_and_the_collection_goes_on(tmp_path):
    task = make_task(FORGETFUL_TASK)
    settings = {"num_steps": 200, "out": tmp_path / "d", "num_envs": 2}
    policy = small_policy(task.task, network="mlp:4")
    with pytest.raises(KeyboardInterrupt):
        collect(policy, task, callbacks=[StopAfter(10)], **settings)
    told = []
    summary = collect(policy, task, resume=True, callbacks=[told.append], **settings)
    assert [event.text for event in told if isinstance(event, MessageEvent) and event.level == "warning"] == [
        "2 episodes came out differently when repeated and were ended where they stood: "
        "this environment is not a function of its seed."
    ]
    lengths = {number: len(episode["action"]) for number, episode in read_episodes(tmp_path / "d").items()}
    assert lengths[0] == lengths[1] == 10
    assert lengths[2] == lengths[3] == Forgetful.NUM_STEPS
    assert summary.num_steps == sum(lengths.values()) == 200


def test_the_manifest_says_how_the_data_were_made(tmp_path):
    teacher = saved_teacher(tmp_path)
    collect(teacher, num_steps=60, out=tmp_path / "d", exploration_epsilon=0.25, seed=9, num_envs=4)
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert manifest["teacher"] == {
        "name": "hand-made",
        "hash": hand_made_teacher().hash,
        "output_kind": "q_values",
        "path": str(teacher),
        "num_parameters": 16,
    }
    assert (manifest["seed"], manifest["exploration_epsilon"], manifest["behaviour"]) == (9, 0.25, "greedy")
    assert manifest["task"]["name"] == "CartPole-v1"
    assert manifest["task"]["environment_kwargs"] == {"max_episode_steps": 40}
    assert manifest["task"]["protocol"]["exploration_epsilon"] == 0.25
    assert (manifest["num_steps"], manifest["is_complete"], manifest["running"]) == (60, True, [])


def test_without_exploration_a_greedy_teacher_does_what_it_says_best(tmp_path):
    collect(hand_made_teacher(), num_steps=200, out=tmp_path / "d", exploration_epsilon=0.0)
    dataset = Dataset.open(tmp_path / "d")
    np.testing.assert_array_equal(dataset.field("action"), dataset.field("q_values").argmax(axis=1))
    assert dataset.field("action").dtype == np.int32


def test_exploration_stores_what_was_done_and_what_the_teacher_said(tmp_path):
    collect(hand_made_teacher(), num_steps=4000, out=tmp_path / "d", exploration_epsilon=0.5)
    dataset = Dataset.open(tmp_path / "d")
    share = (dataset.field("action") == dataset.field("q_values").argmax(axis=1)).mean()
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)


def test_a_python_factory_and_a_sampling_teacher_of_logits(tmp_path):
    def factory():
        return short_cart_pole().make_envs(1, 1)._envs[0]

    teacher = hand_made_teacher(kind="logits", behaviour="sample", scale=0.1)
    summary = collect(teacher, factory, num_steps=2000, out=tmp_path / "d")
    dataset = Dataset.open(summary.path)
    assert dataset.provenance.behaviour == "sample"
    assert [name for name, spec in dataset.provenance.fields.items() if spec.role == "target"] == ["logits"]
    logits = dataset.field("logits").astype(np.float64)
    chance = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    spread = np.sqrt((chance * (1 - chance)).sum())
    assert abs(dataset.field("action").sum() - chance.sum()) < 4 * spread


def test_resuming_with_other_settings_names_what_differs(tmp_path):
    teacher = hand_made_teacher()
    collect(teacher, num_steps=50, out=tmp_path / "d", seed=1)
    with pytest.raises(MismatchError, match=r"seed: 1 against 2.*Use the settings it was begun with"):
        collect(teacher, num_steps=90, out=tmp_path / "d", seed=2, resume=True)
    with pytest.raises(MismatchError, match=r"exploration_epsilon: 0\.0 against 0\.5"):
        collect(teacher, num_steps=90, out=tmp_path / "d", seed=1, exploration_epsilon=0.5, resume=True)
    with pytest.raises(MismatchError, match="teacher hash"):
        collect(hand_made_teacher(scale=2.0), num_steps=90, out=tmp_path / "d", seed=1, resume=True)


def test_a_second_writer_is_refused(tmp_path):
    collect(hand_made_teacher(), num_steps=50, out=tmp_path / "d")
    with folder_lock(tmp_path / "d"), pytest.raises(LockedError, match="is being written by another process"):
        collect(hand_made_teacher(), num_steps=90, out=tmp_path / "d", resume=True)


def test_an_output_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("three years")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=r"Choose another --out\.$"):
            collect(hand_made_teacher(), num_steps=50, out=tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"], "not even a lock is left there"


def test_overwriting_replaces_the_dataset_and_nothing_else(tmp_path):
    collect(hand_made_teacher(), num_steps=50, out=tmp_path / "d")
    (tmp_path / "d" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"Add --resume to go on, --overwrite to delete it"):
        collect(hand_made_teacher(), num_steps=50, out=tmp_path / "d")
    collect(hand_made_teacher(), num_steps=70, out=tmp_path / "d", seed=4, overwrite=True)
    assert Dataset.open(tmp_path / "d").num_steps == 70
    assert (tmp_path / "d" / "notes.txt").read_text() == "mine"


def test_a_number_of_steps_below_1_is_refused(tmp_path):
    with pytest.raises(UsageError, match="num_steps must be 1 or more, got 0"):
        collect(hand_made_teacher(), num_steps=0, out=tmp_path / "d")


def test_a_teacher_whose_outputs_are_not_finite_stops_the_collection_at_once(tmp_path):
    teacher = hand_made_teacher()
    broken = TorchPolicy(teacher.network, dataclasses.replace(teacher.spec, name="broken"))
    broken.network.heads[0].output.weight.data.fill_(float("nan"))
    from rldistill.errors import NumericalError

    with pytest.raises(NumericalError, match=r"^Policy 'broken' answered q_values \[nan, nan\] to an"):
        collect(broken, num_steps=50, out=tmp_path / "d")
    assert num_listed(tmp_path / "d") == 0

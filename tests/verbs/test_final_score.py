"""What the end of a distillation says: how alike student and teacher are, and how well each plays."""

import re
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from rldistill.distillation import Likeness
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.options.distill import DistillOptions
from rldistill.verbs import final_score
from rldistill.verbs.collect import collect
from tests.kit.cart_pole import hand_made_teacher, mirrored_teacher, short_cart_pole
from tests.kit.flat import distill
from tests.kit.small_policies import image_task

TINY = {
    "student": "mlp:4",
    "num_updates": 30,
    "evaluate_period": 30,
    "batch_size": 16,
    "precision": "float32",
    "num_envs": 4,
}


def messages(out, *data, stop_at=None, told="score|no score|stopped", **settings) -> list[str]:
    heard: list[str] = []

    def hear(event) -> bool:
        if isinstance(event, MessageEvent):
            heard.append(event.text)
        return isinstance(event, ProgressEvent) and event.phase == stop_at

    distill(*data, out=out, callbacks=[hear], **TINY | settings)
    return [text for text in heard if re.match(told, text)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    hand_made_teacher().save(folder / "teacher.safetensors")
    collect(folder / "teacher.safetensors", num_steps=600, out=folder / "d", exploration_epsilon=0.4, num_envs=4)
    return folder / "d"


LINE = (
    r"score \d+(\.\d+)? of 40 \(retention -?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\], 10 episodes each\); "
    r"agreement \d+\.\d %"
)


def test_the_end_of_a_run_says_likeness_and_score_in_one_line(data, tmp_path):
    (line,) = messages(tmp_path / "r", data)
    assert re.match(LINE, line), line
    assert messages(tmp_path / "again", data) == [line], "the same seed plays the same episodes"


def test_live_teachers_are_scored_without_the_exploration_of_their_play(tmp_path):
    live = {"teacher": hand_made_teacher(), "task": short_cart_pole(), "collect_steps": 300, "exploration_epsilon": 0.5}
    (line,) = messages(tmp_path / "r", **live)
    assert " of 40 (" in line, line


def test_a_score_can_be_left_out_and_a_finished_run_is_not_scored_again(data, tmp_path):
    assert messages(tmp_path / "r", data, evaluate_episodes=0) == []
    assert messages(tmp_path / "r", data, resume=True) == [], "and a resumed run may ask for another number"


def test_a_teacher_that_is_gone_leaves_the_students_score(tmp_path):
    collect(hand_made_teacher(), num_steps=600, out=tmp_path / "d", exploration_epsilon=0.4, num_envs=4)
    (line,) = messages(tmp_path / "r", tmp_path / "d")
    assert re.match(r"score \d+(\.\d+)? \(10 episodes; its teacher is not at hand\); agreement \d", line), line


def test_stopping_the_play_keeps_the_student(data, tmp_path):
    (line,) = messages(tmp_path / "r", data, stop_at="score teacher")
    assert line == "stopped; the student is saved, its score was not finished"
    assert (tmp_path / "r" / "student.safetensors").is_file()


def test_a_run_that_goes_on_plays_the_score_that_was_stopped(data, tmp_path):
    messages(tmp_path / "r", data, stop_at="score teacher")
    student = (tmp_path / "r" / "student.safetensors").read_bytes()
    (line,) = messages(tmp_path / "r", data, resume=True, stop_at="score student")
    assert line == "stopped; the student is saved, its score was not finished"
    (line,) = messages(tmp_path / "r", data, resume=True)
    assert messages(tmp_path / "straight", data) == [line]
    assert messages(tmp_path / "r", data, resume=True) == []
    assert (tmp_path / "r" / "student.safetensors").read_bytes() == student


def test_the_score_of_a_live_teacher_is_played_after_a_stop(tmp_path):
    live = {"teacher": hand_made_teacher(), "task": short_cart_pole(), "collect_steps": 300}
    messages(tmp_path / "r", **live, stop_at="score random")
    (line,) = messages(tmp_path / "r", **live, resume=True)
    assert messages(tmp_path / "straight", **live) == [line]


def test_an_environment_that_fails_or_never_ends_does_not_fail_the_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(final_score, "_MOST_STEPS", 5)
    (line,) = messages(tmp_path / "r", data)
    assert line == (
        "no score of CartPole-v1: gave up: the student's 10 episodes did not end within 5 steps. "
        f"`rldistill evaluate {tmp_path / 'r'}` plays without this limit"
    )


def test_play_that_nobody_asked_for_is_given_up_after_a_minute(data, tmp_path, monkeypatch):
    monkeypatch.setattr(final_score, "_MOST_SECONDS", -1.0)
    (line,) = messages(tmp_path / "r", data)
    assert line == (
        "no score of CartPole-v1: gave up: the play did not end within -1 s. "
        f"`rldistill evaluate {tmp_path / 'r'}` plays without this limit"
    )
    (line,) = messages(tmp_path / "asked", data, evaluate_episodes=10)
    assert re.match(LINE, line), line


def test_an_environment_given_as_an_object_is_played_only_when_asked_for(tmp_path):
    def own_cart_pole():
        return gymnasium.make("CartPole-v1", max_episode_steps=40)

    live = {"teacher": hand_made_teacher(), "task": own_cart_pole, "collect_steps": 300, "exploration_epsilon": 0.4}
    assert messages(tmp_path / "r", **live) == []
    (line,) = messages(tmp_path / "asked", **live, evaluate_episodes=10)
    assert " of 40 (" in line, line


def test_a_vector_environment_is_played_when_learning_is_over_and_only_when_asked_for(tmp_path):
    vector = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync", max_episode_steps=40)
    live = {"teacher": hand_made_teacher(), "task": vector, "collect_steps": 300, "exploration_epsilon": 0.4}
    assert messages(tmp_path / "r", **live) == []
    note, line = messages(tmp_path / "asked", **live, evaluate_episodes=10, told="score|evaluate_episodes")
    assert note.startswith("evaluate_episodes plays at the end alone")
    assert " of 40 (" in line, line
    assert "scores" not in (tmp_path / "asked" / "metrics.jsonl").read_text()


def in_words(student, teacher, random, alike: Likeness) -> str:
    scores = {"student": np.full(10, student), "teacher": np.full(10, teacher), "random": np.full(10, random)}
    return final_score._in_words(scores, alike, DistillOptions("unused", out="unused"), of="")


def test_a_score_that_is_too_low_says_where_to_read_on():
    assert in_words(212.0, 245.0, 0.0, Likeness("action_gap", 0.0412)) == (
        "score 212 of 245 (retention 0.87 [0.87, 0.87], 10 episodes each); action gap 4.1 %. "
        "To raise it: docs/worse-than-teacher.md in the checkout of rldistill"
    )
    assert in_words(240.0, 245.0, 0.0, Likeness("agreement", 0.9)) == (
        "score 240 of 245 (retention 0.98 [0.98, 0.98], 10 episodes each); agreement 90.0 %"
    )
    assert in_words(1.0, 2.0, 3.0, Likeness("agreement", 0.9)) == (
        "score 1 of 2 (10 episodes each; the teacher is no better than random play); agreement 90.0 %"
    )


def test_a_score_beside_a_teacher_that_may_be_random_gives_no_share_of_its_skill():
    scores = {
        "student": [14.0, 2.0, 9.0, 30.0, 1.0, 8.0, 20.0],
        "teacher": [7.0, 1.0, 3.0, 19.0, 2.0, 8.0, 9.0],
        "random": [4.0, 10.0, 1.0, 12.0, 6.0, 2.0, 11.0],
    }
    said = final_score._in_words(scores, Likeness("agreement", 0.9), DistillOptions("unused", out="unused"), of="")
    assert said == (
        "score 12 of 7 (7 episodes each; whether its teacher is better than random play, 7 episodes do not show); "
        "agreement 90.0 %"
    )


def test_atari_is_played_only_when_asked_for():
    data = SimpleNamespace(task=image_task())
    assert final_score._playable(data, DistillOptions("unused", out="unused")) is None
    assert final_score._playable(data, DistillOptions("unused", out="unused", evaluate_episodes=0)) is None


def test_a_module_that_a_dataset_names_is_not_imported_for_a_score(tmp_path, monkeypatch):
    collect(mirrored_teacher(), num_steps=600, out=tmp_path / "d", exploration_epsilon=0.4, num_envs=4)
    monkeypatch.setattr(final_score, "make_task", lambda task: pytest.fail(f"{task.name} was made"))
    assert messages(tmp_path / "r", tmp_path / "d") == []

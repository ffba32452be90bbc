"""Settings that meet in one run: what students see, remember, normalise and learn from their own play."""

import pytest

import rldistill as rd
from rldistill.errors import UsageError
from rldistill.policies import load_policy
from tests.kit.cue_env import CUE_TASK, teacher_of_cue
from tests.kit.seen_env import SPANS, VECTOR_TASK, teacher_of_state

SMALL = {"num_updates": 12, "batch_size": 32, "evaluate_period": 6, "precision": "float32", "evaluate_episodes": 0}


def test_several_students_see_some_parts_and_normalise_them(tmp_path):
    rd.collect(teacher_of_state(), VECTOR_TASK, teacher_sees="state", names=SPANS, num_steps=300, num_envs=8,
               out=tmp_path / "d")  # fmt: skip
    own = {name: value for name, value in SMALL.items() if name != "evaluate_episodes"}
    students = rd.distill_several(tmp_path / "d", students=["mlp:4", "mlp:6"], names=SPANS, normalize_inputs=True,
                                  student_sees=["hint", "noise"], out=tmp_path / "r", **own)  # fmt: skip
    for student in students:
        assert student.spec.sight is not None and student.network.observation_shape == (4,)
        assert student.normalization is not None and student.normalization.variance[1] == pytest.approx(1, abs=0.3)


def test_a_student_that_remembers_learns_from_the_losses_of_its_own_play(tmp_path):
    source = rd.Live(teacher_of_cue(), CUE_TASK, teacher_sees="always", collect_steps=200, teacher_fraction=0,
                     replay="once", lookahead=0.9, exploration_epsilon=0.0)  # fmt: skip
    made = rd.distill(source, student="mlp:4+gru:4", window=6, loss="reverse_kl", student_sees="shown",
                      out=tmp_path / "r", **SMALL)  # fmt: skip
    assert load_policy(tmp_path / "r" / "student.safetensors").hash == made.hash


def test_a_window_longer_than_any_episode_is_refused_of_stored_and_of_live_play(tmp_path):
    rd.collect(teacher_of_cue(), CUE_TASK, teacher_sees="always", num_steps=200, out=tmp_path / "d")
    live = rd.Live(teacher_of_cue(), CUE_TASK, teacher_sees="always", collect_steps=200)
    for source in (tmp_path / "d", live):
        with pytest.raises(UsageError, match=r"window: got 10 steps, the longest episode of .* has 9\. Choose fewer\."):
            rd.distill(source, student="gru:4", window=10, student_sees="shown", out=tmp_path / "r", overwrite=True,
                       **SMALL)  # fmt: skip

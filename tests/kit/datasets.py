"""Datasets that many tests read and none changes."""

from pathlib import Path

import pytest

from tests.kit.cart_pole import collect_cart_pole, hand_made_teacher, mirrored_teacher, saved_teacher


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory) -> Path:
    """The hand-made teacher of Q-values."""
    return saved_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def q_data(tmp_path_factory, teacher_file) -> Path:
    """2,000 steps of CartPole by a greedy teacher of Q-values, some 60 episodes."""
    return collect_cart_pole(tmp_path_factory.mktemp("data") / "q", teacher_file)


@pytest.fixture(scope="session")
def logit_data(tmp_path_factory) -> Path:
    """The same by a teacher of logits that samples."""
    teacher = hand_made_teacher(kind="logits", behaviour="sample", scale=3.0)
    return collect_cart_pole(tmp_path_factory.mktemp("data") / "logits", teacher, exploration_epsilon=0.0)


@pytest.fixture(scope="session")
def mirrored_data(tmp_path_factory) -> Path:
    """2,000 steps of mirrored CartPole by a greedy teacher of Q-values."""
    return collect_cart_pole(tmp_path_factory.mktemp("data") / "mirrored", mirrored_teacher())

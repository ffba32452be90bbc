"""Published teachers play as well as they are known to: their returns, beside the table that `make teachers` uses.

Six cheap ones always; all the others with the slow tests.
"""

import importlib.util
import math
import warnings
from pathlib import Path

import pytest

from rldistill.verbs.verification import verify

_PAGE = Path(__file__).resolve().parents[3] / "scripts" / "teachers_page.py"
_SPEC = importlib.util.spec_from_file_location("teachers_page", _PAGE)
page = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(page)

# Every kind of actor: categorical, Q-values, a normaliser, a search's MLP, a clipped Gaussian, a squashed one. Fewer
# episodes where each is long; of MountainCar no fewer, for its returns come in two kinds.
CHEAP = {
    "a2c/CartPole-v1": 10,
    "dqn/MountainCar-v0": 40,
    "ppo/Acrobot-v1": 20,
    "ars/MountainCar-v0": 60,
    "trpo/Pendulum-v1": 30,
    "sac/Pendulum-v1": 30,
}
TEACHERS = {page.name_of(teacher): teacher for teacher in page.known_teachers("*")}


def check_return(name, folder, num_episodes, seed):
    teacher = TEACHERS[name]
    mean, deviation = teacher["measured"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*out of date", DeprecationWarning)
        verification = verify(
            page.zip_of(teacher, folder / "sb3"),
            teacher.get("task"),
            num_episodes=num_episodes,
            expected_return=mean,
            expected_standard_error=deviation / math.sqrt(100),
            env_kwargs=teacher.get("env_kwargs"),
            seed=seed,
            num_envs=32,
            num_threads=1,
            device="cpu",
        )
    assert verification.verdict == "agrees", verification.to_dict()["mistakes"]


@pytest.mark.parametrize("name", CHEAP)
def test_a_published_teacher_scores_what_it_is_known_to_score(shared_teachers, name):
    check_return(name, shared_teachers, CHEAP[name], seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TEACHERS.keys() - CHEAP))
def test_each_of_the_other_teachers_scores_what_it_is_known_to_score(shared_teachers, name):
    if "v4" in TEACHERS[name].get("task", ""):
        pytest.importorskip("mujoco", reason="needs the extra `mujoco`")
    check_return(name, shared_teachers, 100, seed=0)


def test_the_table_names_every_zip(shared_teachers):
    zips = (shared_teachers / "sb3").glob("*/*/*.zip")
    names = {str(path.parent.relative_to(shared_teachers / "sb3")) for path in zips if path.stem != "best_model"}
    assert names == set(TEACHERS)

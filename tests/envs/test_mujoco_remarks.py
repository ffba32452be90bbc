"""MuJoCo leaves nothing in the user's folder and on the screen, and Gymnasium's advice does not contradict a choice."""

import logging
import sys
import warnings

import pytest

from rldistill.envs import make_task
from rldistill.envs.gymnasium_envs import take_over_remarks
from rldistill.errors import TaskError

mujoco = pytest.importorskip("mujoco")


@pytest.fixture(autouse=True)
def _nobody_listens():
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(None)
    yield
    mujoco.set_mju_user_warning(before)


def test_an_older_version_is_made_without_a_word_and_without_a_file(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = make_task("HalfCheetah-v4").make_envs(3, 1)
    envs.reset([0, 1, 2], [0, 1, 2])
    envs.close()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_looking_for_the_successor_of_a_version_that_is_gone_says_nothing(capfd):
    with pytest.raises(TaskError, match="The nearest that is there is HalfCheetah-v4"):
        make_task("HalfCheetah-v3")
    assert capfd.readouterr() == ("", "")


def test_other_remarks_are_passed_on_and_leave_no_file(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    take_over_remarks("HalfCheetah-v4")
    with caplog.at_level(logging.WARNING, "rldistill.mujoco"):
        model = mujoco.MjModel.from_xml_string(
            "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"
        )
        data = mujoco.MjData(model)
        data.qvel[0] = float("nan")
        mujoco.mj_step(model, data)
    assert [record.getMessage()[:12] for record in caplog.records] == ["MuJoCo: Nan,"]
    assert list(tmp_path.iterdir()) == []


def test_who_listens_already_goes_on_listening():
    heard = []
    mujoco.set_mju_user_warning(heard.append)
    listener = mujoco.get_mju_user_warning()
    make_task("HalfCheetah-v4")
    assert mujoco.get_mju_user_warning() is listener
    assert len(heard) == 1


def test_tasks_without_mujoco_do_not_load_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "mujoco")
    take_over_remarks("CartPole-v1")
    take_over_remarks("no such task")
    assert "mujoco" not in sys.modules

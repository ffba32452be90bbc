"""The file of an evaluation is tried before the play, and trying it leaves nothing and touches nothing."""

import json
import os
import tempfile

import pytest

from rldistill.errors import OutputExistsError, RldistillError
from rldistill.evaluation.file import check_out
from tests.kit.evaluations import compare
from tests.kit.payout import payout_task


def test_an_earlier_evaluation_may_be_replaced_and_is_not_touched(tmp_path):
    path = tmp_path / "evaluation.json"
    text = json.dumps({"schema_version": 1, "seed": 0, "policies": []})
    path.write_text(text)
    check_out(path)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [None, b"{}", b"3", b"\xff", b"[" * 100_000, b'{"policies": [{"name": "admin"}]}', b'["policies"]']
)
def test_what_is_no_evaluation_stays_and_a_pipe_is_not_opened(tmp_path, content):
    path = tmp_path / "evaluation.json"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with pytest.raises(OutputExistsError, match=r"exists and is not an evaluation\. Choose another --out"):
        check_out(path)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_in_the_place_of_the_temporary_file_is_told_before_the_play(tmp_path, kind):
    place = tmp_path / ".evaluation.json.tmp"
    (tmp_path / "victim").write_bytes(b"the user's own")
    if kind == "link":
        place.symlink_to(tmp_path / "victim")
    else:
        os.mkfifo(place)
    with pytest.raises(RldistillError, match=r"^Writing .*\.evaluation\.json\.tmp failed: got a link, a pipe"):
        check_out(tmp_path / "evaluation.json")
    assert (tmp_path / "victim").read_bytes() == b"the user's own"


def test_what_a_kill_left_of_the_temporary_file_is_no_reason_to_refuse(tmp_path):
    (tmp_path / ".evaluation.json.tmp").write_bytes(b"half")
    check_out(tmp_path / "evaluation.json")


def test_a_kill_during_the_trial_leaves_no_file(tmp_path, monkeypatch):
    seen = []
    make = tempfile.TemporaryFile

    def look(**options):
        file = make(**options)
        seen.append((options["dir"], list(tmp_path.iterdir())))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", look)
    check_out(tmp_path / "evaluation.json")
    assert seen == [(tmp_path, [])]


def test_a_link_that_is_named_stays_one(tmp_path):
    (tmp_path / "results").mkdir()
    link, behind = tmp_path / "evaluation.json", tmp_path / "results" / "newest.json"
    link.symlink_to(behind)
    for seed in (3, 4):
        compare(payout_task(), student=1, num_episodes=2, seed=seed, out=link)
        assert link.is_symlink()
        assert json.loads(behind.read_text())["seed"] == seed
    assert [item.name for item in behind.parent.iterdir()] == ["newest.json"]

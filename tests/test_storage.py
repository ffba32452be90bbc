"""Files are whole or absent, writers exclude each other, and what is read is data."""

import errno
import fcntl
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rldistill import storage
from rldistill.errors import DiskFullError, LockedError, RldistillError
from rldistill.storage import (
    canonical_json,
    folder_lock,
    load_checkpoint,
    save_checkpoint,
    sha256_bytes,
    sha256_file,
    write_atomically,
    write_json,
)
from tests.kit.interruptions import full_disk

DISK_FULL = (
    "Writing {} failed: File too large. What was reported written before is intact. "
    "Free some space and run the same command again, with --resume if it has that option."
)


# JSON and hashes


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"b": 1, "a": [1.5, None, True]}, '{"a":[1.5,null,true],"b":1}'),
        ({"é": "ß"}, '{"é":"ß"}'),
        ({}, "{}"),
        ((1, 2), "[1,2]"),
    ],
)
def test_equal_data_have_one_text(data, text):
    assert canonical_json(data) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("write", [canonical_json, lambda data: write_json("never written", data)])
def test_json_never_holds_what_is_no_number(write, value):
    with pytest.raises(ValueError, match="Out of range float values"):
        write({"a": [value]})


def test_json_for_people_keeps_the_order_and_ends_in_a_new_line(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": "ü"\n}\n'


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_bytes(b"abc") == sha256_bytes(memoryview(b"abc")) == sha256_file(tmp_path / "a") == expected


# Atomic writes


def test_a_write_makes_its_folders_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"data")
    assert path.read_bytes() == b"data"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("data", [b"", b"x" * 100_000, memoryview(b"view")])
def test_a_write_replaces_what_was_there(tmp_path, data):
    (tmp_path / "file").write_bytes(b"old")
    write_atomically(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == bytes(data)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(1000), pytest.raises(DiskFullError) as caught:
        write_atomically(path, b"new" * 1000)
    assert str(caught.value) == DISK_FULL.format(path)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_at_the_first_write_leaves_nothing(tmp_path):
    with full_disk(1000), pytest.raises(DiskFullError):
        write_atomically(tmp_path / "file", b"new" * 1000)
    assert list(tmp_path.iterdir()) == []


def test_writers_of_one_file_wait_for_each_other(tmp_path):
    """Each writes its own text a hundred times: none fails, and the file is one of them, whole."""
    path = tmp_path / "file"

    def write(letter: bytes) -> None:
        for _ in range(100):
            write_atomically(path, letter * 10_000)

    with ThreadPoolExecutor(4) as pool:
        for written in [pool.submit(write, letter) for letter in (b"a", b"b", b"c", b"d")]:
            written.result()
    assert path.read_bytes() in {letter * 10_000 for letter in (b"a", b"b", b"c", b"d")}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    (tmp_path / ".file.tmp").write_bytes(b"half of something longer")
    write_atomically(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


_WRITE_UNTIL_FULL = """
import resource, sys
from pathlib import Path
from rldistill.errors import DiskFullError
from rldistill.storage import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
size = 0
try:
    while True:
        size += 10_000
        write_atomically(Path(sys.argv[1]), bytes([size // 10_000]) * size)
        print(size, flush=True)
except DiskFullError as error:
    print(error)
"""


def test_a_process_that_fills_the_disk_keeps_its_last_reported_write(tmp_path):
    path = tmp_path / "file"
    command = [sys.executable, "-c", _WRITE_UNTIL_FULL, str(path)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert completed.stdout.splitlines() == ["10000", "20000", "30000", "40000", "50000", DISK_FULL.format(path)]
    assert path.read_bytes() == bytes([5]) * 50_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_and_quota_are_a_full_disk(tmp_path, monkeypatch, number):
    def fsync(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError, match=rf"failed: {os.strerror(number)}\. What was reported"):
        write_atomically(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_another_refusal_of_the_system_is_told_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RldistillError) as caught:
        write_atomically(tmp_path / "file" / "below", b"new")
    assert type(caught.value) is RldistillError
    assert str(caught.value) == f"Writing {tmp_path / 'file' / 'below'} failed: Not a directory."


def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"old")

    def interrupt(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_data_reach_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(descriptor):
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("name"), replace(*paths)))
    monkeypatch.setattr(os, "rename", lambda *paths: (order.append("name"), replace(*paths)))
    write_atomically(tmp_path / "file", b"new")
    assert order == ["file", "name", "folder"]


# Folders of strangers


def stranger_made(kind, path, victim):
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("name", [".file.tmp", ".lock"])
def test_nothing_is_written_through_what_a_stranger_put_in_a_folder(tmp_path, kind, exists, name):
    victim, folder = tmp_path / "victim", tmp_path / "stranger"
    if exists:
        victim.write_bytes(b"the user's own")
    folder.mkdir()
    stranger_made(kind, folder / name, victim)
    with pytest.raises(RldistillError) as caught:
        if name == ".lock":
            with folder_lock(folder):
                pass
        else:
            write_atomically(folder / "file", b"ours")
    assert str(caught.value) == (
        f"Writing {folder / name} failed: got a link, a pipe or a folder there, expected a plain file or nothing. "
        "rldistill did not make it. Delete it, and run the same command again."
    )
    assert victim.exists() is exists
    assert not exists or victim.read_bytes() == b"the user's own"
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_link_in_the_place_of_the_file_itself_is_replaced(tmp_path):
    (tmp_path / "victim").write_bytes(b"the user's own")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "file", b"ours")
    assert (tmp_path / "victim").read_bytes() == b"the user's own"
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert not (tmp_path / "file").is_symlink()


def test_a_writer_that_was_suspended_is_not_waited_for_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LONGEST_WAIT", 0.02)
    with (tmp_path / ".file.tmp").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockedError) as caught:
            write_atomically(tmp_path / "file", b"new")
    assert str(caught.value) == (
        f"Writing {tmp_path / '.file.tmp'} failed: another process has had it open for 0.02 seconds. Was it suspended? "
        "Let it go on or end it, and run the same command again."
    )
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Locks


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path):
    with folder_lock(tmp_path), pytest.raises(LockedError) as caught, folder_lock(tmp_path):
        pass
    assert str(caught.value) == (
        f"{tmp_path} is being written by another process (id {os.getpid()}). Wait for it, or choose another --out."
    )


def test_a_lock_that_does_not_fit_the_disk_is_told_in_one_line(tmp_path):
    with full_disk(0), pytest.raises(DiskFullError) as caught, folder_lock(tmp_path):
        pass
    assert str(caught.value) == DISK_FULL.format(tmp_path)
    with folder_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_lock_is_free_after_its_block_and_after_an_error_in_it(tmp_path):
    with pytest.raises(ZeroDivisionError), folder_lock(tmp_path):
        raise ZeroDivisionError
    for _ in range(2):
        with folder_lock(tmp_path):
            pass


def test_a_lock_makes_its_folder(tmp_path):
    with folder_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()


def test_folders_are_locked_one_by_one(tmp_path):
    with folder_lock(tmp_path / "a"), folder_lock(tmp_path / "b"):
        assert (tmp_path / "b").is_dir(), "the lock of one keeps none from another"


_HOLD = """
import sys, time
from pathlib import Path
from rldistill.storage import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_frees_its_lock(tmp_path):
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"another process \(id {holder.pid}\)"), folder_lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with folder_lock(tmp_path):
        pass


# Checkpoints

STATE = {
    "step": 7,
    "best_mean": None,
    "scores": [1.5, -2.0],
    "rng": "text",
    "learner": {"weights": torch.arange(6.0).reshape(2, 3), "generator": torch.Generator().manual_seed(3).get_state()},
}


def assert_equal_states(state, expected=STATE):
    assert type(state) is type(expected)
    if isinstance(expected, dict):
        assert state.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal_states(state[key], value)
    elif isinstance(expected, torch.Tensor):
        assert state.dtype == expected.dtype
        assert torch.equal(state, expected)
    else:
        assert state == expected


def refusal(path):
    with pytest.raises(RldistillError) as caught:
        load_checkpoint(path)
    line = str(caught.value)
    assert "\n" not in line
    start, end = f"Checkpoint {path} cannot be read: ", ". Start anew with --overwrite."
    assert line.startswith(start)
    assert line.endswith(end)
    return line.removeprefix(start).removesuffix(end)


def test_a_checkpoint_gives_back_what_was_saved(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", STATE)
    assert_equal_states(load_checkpoint(tmp_path / "a.ckpt"))


def test_a_pipe_in_place_of_a_checkpoint_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.ckpt")
    assert refusal(tmp_path / "a.ckpt") == "it is no regular file"


def test_a_checkpoint_that_may_not_be_read_is_not_to_be_deleted(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.ckpt", STATE)

    def shut(*_arguments):  # root may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("zipfile.ZipFile", shut)
    with pytest.raises(RldistillError, match=r"a.ckpt cannot be read: Permission denied. Check what you may do there"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", STATE)
    with full_disk(1000), pytest.raises(DiskFullError):
        save_checkpoint(tmp_path / "a.ckpt", {**STATE, "step": 8})
    assert load_checkpoint(tmp_path / "a.ckpt")["step"] == 7


class Intruder:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return open, (self._path, "w")


def torch_bytes(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        lambda state: torch_bytes(state),
        lambda state: torch_bytes(state, _use_new_zipfile_serialization=False),
        lambda state: pickle.dumps(state),
        lambda state: pickle.dumps(state, protocol=0),
    ],
    ids=["torch", "torch before 1.6", "pickle", "pickle in text"],
)
def test_a_checkpoint_with_code_is_refused_and_the_code_not_run(tmp_path, pack):
    data = pack({"step": 7, "extra": Intruder(tmp_path / "broken in")})
    (tmp_path / "a.ckpt").write_bytes(data)
    refusal(tmp_path / "a.ckpt")
    assert not (tmp_path / "broken in").exists()


def test_the_intruder_of_these_tests_would_get_in_through_pickle(tmp_path):
    pickle.loads(pickle.dumps(Intruder(tmp_path / "broken in"))).close()
    assert (tmp_path / "broken in").exists()


def test_a_refused_checkpoint_does_not_advise_to_trust_it(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(torch_bytes({"extra": Intruder(tmp_path / "broken in")}))
    assert refusal(tmp_path / "a.ckpt") == "it holds more than numbers, texts and tensors"


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path):
    # It changes nothing in what zip archives carry and nobody reads, such as dates and padding.
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, STATE)
    data = path.read_bytes()
    num_refused = 0
    for position in range(0, len(data), 13):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            state = load_checkpoint(path)
        except RldistillError:
            num_refused += 1
            refusal(path)
        else:
            assert_equal_states(state)
    assert num_refused > 0.7 * len(data) / 13


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    save_checkpoint(tmp_path / "a.ckpt", STATE)
    data = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(data[: int(share * len(data))])
    refusal(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello", "File is not a zip file"),
        (json.dumps(STATE["scores"]).encode(), "File is not a zip file"),
        (torch_bytes([1, 2]), "it holds a list"),
        (torch_bytes(torch.zeros(3)), "it holds a Tensor"),
    ],
)
def test_something_else_is_refused(tmp_path, data, reason):
    (tmp_path / "a.ckpt").write_bytes(data)
    assert refusal(tmp_path / "a.ckpt") == reason


def test_a_missing_checkpoint_is_refused(tmp_path):
    assert "No such file or directory" in refusal(tmp_path / "a.ckpt")


def test_reading_folders_needs_no_torch(tmp_path):
    script = textwrap.dedent("""
        import sys
        import rldistill.storage
        assert "torch" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_a_disk_without_locks_is_told_in_one_line(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(RldistillError) as caught, folder_lock(tmp_path / "r"):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'r'} cannot be locked against other processes: No locks available. Choose an --out on a disk "
        "with locks, such as a local one."
    )

"""A zip of a stranger is read within limits, or refused in one line."""

import io
import re
import zipfile

import numpy as np
import pytest

from rldistill.adapters import weights as archive_module
from rldistill.adapters.weights import open_archive, opened_archive
from rldistill.errors import PolicyFileError


def make_zip(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def refusal(tmp_path):
    """Return a function from the bytes of a file to the line with which it is refused."""
    path = tmp_path / "p.zip"

    def refuse(data, name="data"):
        path.write_bytes(data)
        with pytest.raises(PolicyFileError) as caught, open_archive(path) as archive:
            archive.read(name)
        line = str(caught.value)
        assert "\n" not in line
        assert line.endswith((".", "?"))
        return line.replace(str(path), "FILE")

    return refuse


def test_members_are_read_by_name(tmp_path):
    path = tmp_path / "p.zip"
    path.write_bytes(make_zip({"data": b"{}", "policy.pth": b"abc" * 10_000}))
    with open_archive(path) as archive:
        assert archive.names == {"data", "policy.pth"}
        assert archive.read("policy.pth") == b"abc" * 10_000
        assert archive.read("data") == b"{}"


def test_a_missing_member_lists_those_there_are(refusal):
    assert refusal(make_zip({"model.pkl": b"x"})) == (
        "Policy file FILE holds no 'data', only model.pkl. Was it written by another library?"
    )
    assert "only nothing." in refusal(make_zip({}))


def test_nothing_there(tmp_path):
    with pytest.raises(PolicyFileError, match=r"found nothing there, expected a zip file\. Is the path right\?"):
        open_archive(tmp_path / "p.zip").__enter__()
    with pytest.raises(PolicyFileError, match=r"found a folder there, expected a zip file"):
        open_archive(tmp_path).__enter__()


def test_an_empty_file(refusal):
    assert refusal(b"") == ("Policy file FILE is empty: got 0 bytes. Its download or copy was cut off. Fetch it again.")


def test_every_truncation(refusal):
    data = make_zip({"data": b"{}" * 50})
    for length in range(1, len(data)):
        assert refusal(data[:length]).startswith("Policy file FILE cannot be read: ")


@pytest.mark.parametrize("data", [b"hello", b"PK\x03\x04" + bytes(100), b"\x80\x04." * 99])
def test_something_else(refusal, data):
    line = refusal(data)
    assert line.startswith("Policy file FILE cannot be read: ")
    assert line.endswith("It is not a zip archive, or its download or copy is incomplete. Fetch it again.")


def test_a_flipped_bit_in_a_member(refusal):
    data = make_zip({"data": b"0123456789"}, zipfile.ZIP_STORED)
    assert "data in it: Bad CRC-32" in refusal(data.replace(b"0123456789", b"0123456780", 1))


def test_an_encrypted_member(refusal):
    data = bytearray(make_zip({"data": b"0123456789"}, zipfile.ZIP_STORED))
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + offset] |= 1
    assert "is encrypted" in refusal(bytes(data))


def test_a_bomb_is_refused_by_what_it_declares(refusal):
    line = refusal(make_zip({"data": bytes(4 << 20)}))
    assert re.fullmatch(
        r"Policy file FILE is refused: data unpacks to more than 200 times its \d,\d\d\d bytes\. "
        r"Weights do not compress like that: it was made to exhaust its reader\.",
        line,
    )


def test_a_bomb_in_a_member_that_nobody_reads(refusal):
    assert "bomb unpacks to more than 200 times" in refusal(make_zip({"data": b"{}", "bomb": bytes(4 << 20)}))


def test_a_bomb_that_declares_a_small_size_is_cut_off(refusal):
    data = make_zip({"data": bytes(4 << 20)})
    lie = data.replace((4 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lie != data
    assert refusal(lie).startswith("Policy file FILE cannot be read: data in it: ")


def test_what_really_comes_out_is_counted(refusal, monkeypatch):
    # Whatever the declaration says: the same limits hold for the bytes that were read.
    monkeypatch.setattr(archive_module, "_check_declared", lambda *_: None)
    assert "unpacks to more than 200 times" in refusal(make_zip({"data": bytes(4 << 20)}))


def test_a_member_beyond_the_limit(refusal, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_MEMBER_BYTES", 1 << 20)
    assert refusal(make_zip({"data": bytes((1 << 20) + 1)}, zipfile.ZIP_STORED)) == (
        "Policy file FILE is refused: data unpacks to more than 1 MiB, the most that is read."
    )


def test_too_many_members(refusal, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 3)
    assert refusal(make_zip({str(number): b"" for number in range(4)})) == (
        "Policy file FILE is refused: got 4 members, expected at most 3. No policy needs so many: it was made to "
        "exhaust its reader."
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice(refusal):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", "{}")
        archive.writestr("data", "[]")
    assert "it holds 'data' twice" in refusal(buffer.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_one_of_many_members_that_is_there_twice_is_named(refusal):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in [*range(50), 49]:
            archive.writestr(str(number), "")
    assert "it holds '49' twice" in refusal(buffer.getvalue())


def test_small_members_may_compress_well(tmp_path):
    # A policy that starts at zero, deflated by somebody's script, is no bomb.
    path = tmp_path / "p.zip"
    path.write_bytes(make_zip({"data": bytes(1 << 20)}))
    with open_archive(path) as archive:
        assert len(archive.read("data")) == 1 << 20


def test_bytes_in_memory_are_checked_alike():
    with opened_archive(io.BytesIO(make_zip({"data": b"{}"})), source="FILE") as archive:
        assert archive.read("data") == b"{}"
    with (
        pytest.raises(PolicyFileError, match=r"^FILE is refused: data unpacks to more than 200 times"),
        opened_archive(io.BytesIO(make_zip({"data": bytes(4 << 20)})), source="FILE"),
    ):
        pass


def test_members_that_are_each_within_their_limits_are_not_together(monkeypatch):
    monkeypatch.setattr(archive_module, "FREE_UNPACKED_BYTES", 2 << 20)
    member = np.random.default_rng(0).bytes(1 << 14) + bytes(900 << 10)
    several = make_zip({str(index): member for index in range(3)})
    line = (
        r"^FILE is refused: its members unpack to 2 MiB, expected at most 2 MiB for [\d,]+ bytes\. Weights do not "
        r"compress like that: it was made to exhaust its reader\. Save it uncompressed if it is yours\.$"
    )
    with pytest.raises(PolicyFileError, match=line), opened_archive(io.BytesIO(several), source="FILE"):
        pass
    with opened_archive(io.BytesIO(several), source="FILE", num_bytes=1 << 20) as archive:
        assert len(archive.names) == 3


def test_a_member_may_be_given_a_limit_of_its_own(tmp_path):
    path = tmp_path / "p.zip"
    path.write_bytes(make_zip({"data": bytes((2 << 20) + 1)}, zipfile.ZIP_STORED))
    line = f"Policy file {path} is refused: data unpacks to more than 2 MiB, the most that is read of it."
    with open_archive(path) as archive, pytest.raises(PolicyFileError) as caught:
        archive.read("data", most=2 << 20)
    assert str(caught.value) == line

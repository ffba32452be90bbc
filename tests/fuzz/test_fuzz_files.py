"""The fuzz itself: a case is a function of its seed and number, and what is not clean is found and kept."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.mutators import damage_bytes, damage_pickle, damage_value

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("damage", "honest"),
    [
        (damage_bytes, bytes(range(200))),
        (damage_value, {"a": [1, 2, {"b": 0.5}], "c": "text"}),
        (damage_pickle, b"\x80\x02]q\x00(K\x01K\x02K\x03e."),
    ],
)
def test_damage_is_repeated_by_its_seed_and_leaves_what_it_was_made_of(damage, honest):
    before = repr(honest)
    cases = [repr(damage(random.Random(seed), honest)) for seed in range(50)]
    assert cases == [repr(damage(random.Random(seed), honest)) for seed in range(50)]
    assert len(set(cases)) > 25
    assert repr(honest) == before


@pytest.mark.slow
def test_a_hundred_damaged_files_are_clean(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz.fuzz_files", "--count", "100", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "kept").exists()
    assert "100 cases in" in done.stdout

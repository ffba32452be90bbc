"""The measurements can be called; what they measure is theirs to say."""

import subprocess
import sys
from pathlib import Path

_BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_bench_lists_its_questions_without_measuring() -> None:
    command = [sys.executable, str(_BENCH / "run.py"), "--help"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    files = {path.stem for path in _BENCH.glob("*.py")} - {
        "kit",
        "run",
        "peers",
    }  # peers has environments of its own: make bench-peers
    assert files
    assert all(name in listing for name in files)

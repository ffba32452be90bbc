"""What does a verb cost before it works? CPU seconds of whole processes, beside that of importing torch.

Each runs in a process of its own, on one thread, with hardly any work: a policy is read, 100 steps are collected, two
episodes evaluated.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import random_teacher, run_alone, show

from rldistill.envs import make_task

_TORCH = "import torch"
_CALL = "import sys; sys.argv = ['rldistill', *{!r}.split()]; from rldistill.cli.main import main; main()"


def _cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = f"import os; os.environ['OMP_NUM_THREADS'] = '1'\n{code}"
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _processes(folder: Path) -> dict[str, str]:
    """Return by name what a process does; its policies lie in the folder."""
    cart, pong = folder / "cart.safetensors", folder / "pong.safetensors"
    random_teacher(make_task("CartPole-v1"), "mlp:64x64", layer_norm=False).save(cart)
    random_teacher(make_task("atari:pong")).save(pong)
    # Not on the command line: it ends a process as soon as it has its answer.
    collect = "import rldistill as rd; rd.collect({!r}, {!r}, num_steps={}, out={!r}, num_threads=1, overwrite=True)"
    evaluate = "import rldistill as rd; rd.evaluate({!r}, {!r}, num_episodes={}, num_threads=1)"
    out = str(folder / "data")
    return {
        _TORCH: _TORCH,
        "load_policy": f"import rldistill as rd; rd.load_policy({str(cart)!r})",
        "inspect": _CALL.format(f"inspect {cart}"),
        "collect, CartPole": collect.format(str(cart), "CartPole-v1", 100, out),
        "evaluate, CartPole": evaluate.format(str(cart), "CartPole-v1", 2),
        "collect, Pong, 16 emulators": collect.format(str(pong), "atari:pong", 160, out),
    }


def main(*, quick: bool) -> None:
    num_rounds = 3 if quick else 7
    with tempfile.TemporaryDirectory() as folder:
        processes = _processes(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in processes}
        for _ in range(num_rounds):
            for name, code in processes.items():
                seconds[name].append(_cpu_seconds(code))
    rows: list[list[str]] = []
    for name, own in seconds.items():
        above = statistics.median(mine - torch for mine, torch in zip(own, seconds[_TORCH], strict=True))
        rows.append([name, f"{statistics.median(own):.2f}", f"{above:.2f}"])
    show(
        "CPU seconds of a process",
        ["", "in all", "above importing torch"],
        rows,
        f"medians of {num_rounds} rounds; of the last column, within a round.",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)

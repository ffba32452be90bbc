"""What lies beside a zip: its normaliser, and the return that was recorded with it.

Layouts: RL-Zoo's (`<env>_1/<env>.zip`, `<env>_1/best_model.zip`, `<env>_1/<env>/vecnormalize.pkl`), its
published form (all in one folder), the Hugging Face hub's (`vec_normalize.pkl`, `results.json`), and
`CheckpointCallback`'s (`rl_model_1000_steps.zip`, `rl_model_vecnormalize_1000_steps.pkl`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from rldistill.adapters.archive import opened_archive
from rldistill.adapters.arrays import read_npy
from rldistill.errors import PolicyFileError
from rldistill.limits import read_json

_NAMES = ("vecnormalize.pkl", "vec_normalize.pkl")
_CHECKPOINT = re.compile(r"(.+)_(\d+_steps)")
_RUN_NUMBER = re.compile(r"_\d+$")
_MAX_RECORD_BYTES = 16 << 20


def folders_beside(path: Path) -> list[Path]:
    """Return the folders in which the zoo keeps what belongs to a zip, nearest first."""
    folder = path.parent
    names = dict.fromkeys((path.stem, folder.name, _RUN_NUMBER.sub("", folder.resolve().name)))
    return [folder, *(folder / name for name in names if name)]


def find_normalizer(path: Path) -> Path | None:
    """Return the normaliser that belongs to a zip, or None."""
    checkpoint = _CHECKPOINT.fullmatch(path.stem)
    own = [path.with_name(f"{checkpoint[1]}_vecnormalize_{checkpoint[2]}.pkl")] if checkpoint else []
    candidates = own + [folder / name for folder in folders_beside(path) for name in _NAMES]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def recorded_return(path: Path) -> dict[str, Any] | None:
    """Return the return that was measured with a zip, where a file beside it says so.

    `best_model.zip` is the best of its evaluations, any other zip is taken for the last.

    Returns:
        `mean`, `standard_deviation`, `episodes`, `chosen`, `file`, in plain JSON; None where there is no such file
        or it cannot be read: the record is a hint, and never a reason to refuse a policy.
    """
    for folder in folders_beside(path):
        for name, read in (("evaluations.npz", _from_evaluations), ("results.json", _from_results)):
            file = folder / name
            if file.is_file() and file.stat().st_size <= _MAX_RECORD_BYTES:
                try:
                    record = read(file.read_bytes(), is_best=path.stem == "best_model")
                except (PolicyFileError, ValueError, SyntaxError, KeyError, TypeError, OSError, OverflowError):
                    continue
                return {**record, "file": name}
    return None


def _from_evaluations(content: bytes, *, is_best: bool) -> dict[str, Any]:
    with opened_archive(content, source="evaluations.npz") as archive:
        results = read_npy(archive.read("results.npy", most=_MAX_RECORD_BYTES)).astype(np.float64)
    if results.ndim != 2 or not results.size or not np.isfinite(results).all():
        raise ValueError("no table of returns")
    means = results.mean(axis=1)
    row = results[int(means.argmax()) if is_best else -1]
    return {
        "mean": float(row.mean()),
        "standard_deviation": float(row.std()),
        "episodes": len(row),
        "chosen": f"{'best' if is_best else 'last'} of {len(results)} evaluations",
    }


def _from_results(content: bytes, *, is_best: bool) -> dict[str, Any]:
    values: object = read_json(content)
    if not isinstance(values, Mapping):
        raise ValueError("no record")
    record = cast(Mapping[str, Any], values)
    mean, deviation = float(record["mean_reward"]), float(record["std_reward"])
    if not np.isfinite([mean, deviation]).all():
        raise ValueError("no numbers")
    return {
        "mean": mean,
        "standard_deviation": deviation,
        "episodes": int(record["n_eval_episodes"]),
        "chosen": "as its publisher reported it",
    }

"""A teacher, a dataset and a run that every test may read; those who damage something copy it first."""

from pathlib import Path

import pytest

from tests.kit.cart_pole import collect_cart_pole, saved_teacher
from tests.kit.commands import run_well


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder with `teacher.safetensors`, the dataset `data` and the run `run`."""
    folder = tmp_path_factory.mktemp("files")
    collect_cart_pole(folder / "data", saved_teacher(folder), num_steps=600)
    run_well("distill", folder / "data", *TINY, "--out", folder / "run")
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


TINY = ("--student", "mlp:8", "--num-updates", "20", "--evaluate-period", "10", "--precision", "float32")

"""What every test gets: one thread, GPU tests only where there is a GPU, and strong teachers where they are at hand."""

import os
from pathlib import Path

import pytest

# Sums in another order differ in the last bits, so tests compute on one thread. torch reads these when it is first
# imported, here or in a subprocess; importing it for them would cost every run its second and a half.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
# Nothing is kept from one test to the next, nor left in the home of whoever runs them.
os.environ["RLDISTILL_CACHE"] = ""

pytest_plugins = ["tests.kit.datasets", "tests.kit.evaluations"]

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device on this machine"))


@pytest.fixture(scope="session")
def shared_teachers() -> Path:
    """Folder with teachers trained elsewhere; it lies beside the repository, never inside it."""
    folder = REPOSITORY.parent / "shared" / "teachers"
    if not folder.is_dir():
        pytest.skip(f"the shared teachers are not at {folder}")
    return folder

import os

import pytest

for package in ("minari", "h5py", "PIL"):
    pytest.importorskip(package)


@pytest.fixture(autouse=True)
def minari_root(tmp_path, monkeypatch):
    """A place of its own for Minari's local datasets, and no waiting for the disk."""
    root = tmp_path / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return root

"""The format page promises a stranger a reader: take it from the page, run it, compare."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rldistill.data import Dataset
from tests.data.made_up import make_provenance, make_provenance_of_parts, write_dataset

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dataset-format.md"


@pytest.fixture(scope="module")
def read_segments() -> Callable[[Path], Iterator[Any]]:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert "rldistill" not in snippet
    namespace: dict[str, Any] = {}
    exec(compile(snippet, str(PAGE), "exec"), namespace)
    return namespace["read_segments"]


@pytest.mark.parametrize(
    "provenance",
    [
        make_provenance(frame_stack=4),
        make_provenance(frame_stack=2),
        make_provenance(frame_stack=1, vector=7),
        make_provenance_of_parts(),
    ],
    ids=["stacks of 4", "stacks of 2", "vectors", "parts"],
)
def test_the_reader_on_the_page_reads_what_ours_reads(tmp_path, read_segments, provenance):
    write_dataset(tmp_path / "d", provenance, steps_per_shard=50)
    dataset = Dataset.open(tmp_path / "d")
    segments = list(read_segments(tmp_path / "d"))
    assert len(segments) == len(dataset.segments())
    for (episode, first_step, observations, fields), ours in zip(segments, dataset.segments(), strict=True):
        assert (episode, first_step) == (ours.episode, ours.first_step)
        parts = dataset.observation_parts(np.array(ours.steps))
        assert [name.removeprefix("observation.") for name in observations] == list(parts)
        for theirs, part in zip(observations.values(), parts.values(), strict=True):
            np.testing.assert_array_equal(theirs if provenance.frame_stack > 1 else theirs[:, 0], part)
            assert theirs.dtype == part.dtype
        assert set(fields) == set(dataset.provenance.step_fields)
        for name, values in fields.items():
            np.testing.assert_array_equal(values, dataset.field(name)[list(ours.steps)])


def test_the_page_names_every_key_of_a_manifest(tmp_path):
    write_dataset(tmp_path / "d")
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    page = PAGE.read_text(encoding="utf-8")
    keys = [*manifest, *manifest["shards"][0], *manifest["fields"]["observation"], *manifest["teacher"]]
    assert [key for key in keys if f"`{key}`" not in page and not re.search(rf"[{{ ,]{key}[}},]", page)] == []

"""Which kind of network sees what, and the ladder of sizes on which a small student is looked for."""

from collections.abc import Mapping
from typing import Literal

from rldistill.networks.torsos import image_shape
from rldistill.tasks import ObservationFingerprint

_VECTORS = (
    *("mlp:1", "mlp:2", "mlp:3", "mlp:4", "mlp:6", "mlp:8", "mlp:12", "mlp:16", "mlp:32", "mlp:16x16", "mlp:32x32"),
    *("mlp:64x64", "mlp:128x128", "mlp:256x256"),
)
_REMEMBERING = ("gru:1", "gru:2", "gru:3", "gru:4", "gru:6", "gru:8", "gru:12", "gru:16", "gru:32", "gru:64", "gru:128")
_IMAGES = ("conv:4-4-4:16", "conv:8-8-8:32", "net3", "net2", "net1", "dqn")
_PARTS = ("combined:4-4-4:16:16", "combined:8-8-8:32:32", "combined:16-16-16:64:64")


def kind_of_sight(fingerprint: ObservationFingerprint) -> Literal["vectors", "images", "parts"]:
    """Return which kind of network sees an observation: `parts` are several, with an image among them."""
    if any(part.is_image for part in fingerprint.observation_parts):
        return "parts"
    return "vectors" if image_shape(fingerprint.observation_shape) is None else "images"


def gets_cells(seen: ObservationFingerprint, *, remembers: bool) -> bool:
    """Return whether a student that is chosen here has cells: of vectors, for a teacher that remembers."""
    return remembers and kind_of_sight(seen) == "vectors"


def ladder(seen: ObservationFingerprint, *, remembers: bool = False) -> tuple[str, ...]:
    """Return the names of networks to try on what is seen of a task; a teacher that remembers gets such as do."""
    if gets_cells(seen, remembers=remembers):
        return _REMEMBERING
    return {"vectors": _VECTORS, "images": _IMAGES, "parts": _PARTS}[kind_of_sight(seen)]


def next_size(sizes: Mapping[str, int], tried: Mapping[str, bool], teacher_size: int | None) -> str | None:
    """Return which size to try next, None where the smallest that holds has been found.

    The first has a tenth of the teacher's parameters; while none holds, the next has at least twice those of the
    largest that failed; then the search halves what lies between that and the smallest that held.

    Args:
        sizes: parameters by name, increasing.
        tried: whether each size that was tried held.
        teacher_size: parameters of the teacher, if they are known.
    """
    names = list(sizes)
    held = [index for index, name in enumerate(names) if tried.get(name)]
    failed = [index for index, name in enumerate(names) if tried.get(name) is False]
    high = min(held, default=len(names))
    low = max((index for index in failed if index < high), default=-1)
    if high - low <= 1:
        return None
    if not tried:
        tenth = [index for index, name in enumerate(names) if teacher_size is None or 10 * sizes[name] <= teacher_size]
        return names[tenth[-1] if tenth and teacher_size is not None else len(names) // 2]
    if held:
        return names[(low + high) // 2]
    return next((name for name in names if sizes[name] >= 2 * sizes[names[low]]), names[-1])

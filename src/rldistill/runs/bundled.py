"""Teachers that come with the project: from the clone's `zoo/`, or from inside the wheel."""

from pathlib import Path

from rldistill.errors import RldistillError

_PACKAGE = Path(__file__).resolve().parents[1]


def bundled_teacher(name: str) -> Path:
    """Return the policy file of a bundled teacher, such as `pong`.

    Raises:
        RldistillError: this installation has none of that name.
    """
    candidates = [_PACKAGE / "zoo" / f"{name}.safetensors", _PACKAGE.parents[1] / "zoo" / f"{name}.safetensors"]
    for path in candidates:
        if path.is_file():
            return path
    raise RldistillError(
        f"No bundled teacher {name!r} in this installation: expected {candidates[-1]}. "
        "Clone the repository, or name a policy file with --teacher."
    )

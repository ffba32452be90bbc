"""Teachers and experiments that come with the project: from the clone's folders, or from inside the wheel."""

import os
from pathlib import Path

from rldistill.errors import RldistillError

_PACKAGE = Path(__file__).resolve().parents[1]
# In the wheel they lie inside the package, in a clone beside `src`.
_ROOTS = (_PACKAGE, _PACKAGE.parents[1])


def bundled_teacher(name: str) -> Path:
    """Return the policy file of a bundled teacher, such as `pong`.

    Raises:
        RldistillError: this installation has none of that name.
    """
    path = find_bundled_teacher(name)
    if path is not None:
        return path
    raise RldistillError(
        f"No bundled teacher {name!r} in this installation: expected {_ROOTS[-1] / 'zoo' / name}.safetensors. "
        "Clone the repository, or name a policy file with --teacher."
    )


def find_bundled_teacher(name: str) -> Path | None:
    """Return the policy file of a bundled teacher, None where there is none."""
    candidates = [root / "zoo" / f"{name}.safetensors" for root in _ROOTS]
    return next((path for path in candidates if path.is_file()), None)


def recorded_path(path: Path) -> Path:
    """Return where records say that a file is: a bundled one in any installation, such as zoo/pong.safetensors."""
    return next((path.relative_to(root) for root in _ROOTS if path.is_relative_to(root / "zoo")), path)


def find_recorded(path: Path) -> Path:
    """Return where the file of a record is."""
    bundled = (root / path for root in _ROOTS)
    return path if os.path.exists(path) else next((own for own in bundled if os.path.isfile(own)), path)


def bundled_experiments() -> dict[str, Path]:
    """Return the TOML files of `reproduce`, by name."""
    found = [path for root in reversed(_ROOTS) for path in sorted((root / "configs").glob("*.toml"))]
    return {path.stem: path for path in found}

"""The policy file: one `.safetensors` with one metadata key, `rldistill`.

The key holds canonical JSON (sorted keys, no blanks): `schema_version`, the fields of
`PolicySpec`, and `sha256`. That hash is taken over the JSON without `sha256`, then, for each
tensor in the order of names, over `name`, dtype, shape and little-endian bytes. It is checked
at load (safetensors itself lets a flipped bit through) and is the policy's identity.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rldistill.errors import PolicyFileError, first_line, shown
from rldistill.limits import HEADER, TOO_MUCH, read_json
from rldistill.storage import canonical_json

SCHEMA_VERSION = 1
METADATA_KEY = "rldistill"


def policy_hash(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 that identifies a policy, of `PolicySpec.to_dict()` and the weights as stored."""
    content = {**description, "schema_version": SCHEMA_VERSION}
    digest = hashlib.sha256(canonical_json(content).encode())
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        header = f"{name}|{str(tensor.dtype).removeprefix('torch.')}|{'x'.join(map(str, tensor.shape))}|"
        digest.update(header.encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def check_header(head: bytes, *, source: str) -> None:
    """Refuse a safetensors header longer than any tensors need, before it is read: as JSON it takes twenty times it."""
    num_bytes = int.from_bytes(head[:8], "little")
    if num_bytes > HEADER.num_bytes:
        raise PolicyFileError(
            f"{source} is refused: its header takes {num_bytes:,} bytes, expected at most "
            f"{HEADER.num_bytes:,}. {TOO_MUCH}"
        )


def pack_policy(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a policy file."""
    content = {**description, "schema_version": SCHEMA_VERSION, "sha256": policy_hash(description, weights)}
    return safetensors.torch.save(dict(weights), {METADATA_KEY: canonical_json(content)})


def unpack_policy(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a policy file and check that nothing in it was altered.

    Returns:
        The description (without `schema_version` and `sha256`) and the weights.

    Raises:
        PolicyFileError: missing, truncated, altered, not a policy, or of a newer schema.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "nothing"
        raise PolicyFileError(
            f"Policy file {path}: found {kind} there, expected a .safetensors file. Is the path right?"
        )
    try:
        with path.open("rb") as start:
            head = start.read(8)
        # Whatever is no safetensors says a length beyond its own limit: the library tells it better.
        if int.from_bytes(head, "little") < path.stat().st_size:
            check_header(head, source=f"Policy file {path}")
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise PolicyFileError(
            f"Policy file {path} cannot be read: {first_line(error)}. It is not a safetensors file, or its download or "
            "copy is incomplete. Fetch it again."
        ) from error
    if METADATA_KEY not in metadata:
        raise PolicyFileError(
            f"{path} is a safetensors file but not a policy: got no metadata key {METADATA_KEY!r}, which says "
            "how the weights are to be used. Load weights of another library in Python: "
            "rd.load_policy(path, module=…, task=…, outputs=…)."
        )
    return _checked_description(path, metadata[METADATA_KEY], weights), weights


def _checked_description(path: Path, text: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    altered = f"Policy file {path} was altered: {{}}. A flipped bit or an edit; fetch it again from where it came."
    try:
        content = read_json(text, HEADER)
        recorded, version = content.pop("sha256"), content.pop("schema_version")
        actual = policy_hash(content, weights)
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # also NaN and half a character in the JSON
        raise PolicyFileError(altered.format("its description is not the JSON that was written")) from error
    if version != SCHEMA_VERSION:
        raise PolicyFileError(
            f"Policy file {path}: got schema version {shown(version)}, this version reads {SCHEMA_VERSION}. Upgrade "
            "rldistill."
        )
    if actual != recorded:
        raise PolicyFileError(
            altered.format(f"its content has SHA-256 {actual[:12]}…, {str(recorded)[:12]}… was recorded")
        )
    return content

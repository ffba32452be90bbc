"""What made a job's result: versions, commit and machine; no folder, no name of a host or a person."""

import os
import platform
from pathlib import Path
from typing import Any

from rldistill.session.run_folder import provenance


def made_here(device: str) -> dict[str, Any]:
    """Return versions, commit and machine of this process, which computes on `device`."""
    made = provenance("reproduce")
    if device == "cuda":
        import torch

        device = torch.cuda.get_device_name()
    machine = {"system": platform.system(), "processor": _processor(), "num_processors": os.cpu_count()}
    return {"versions": made["versions"], "commit": made["commit"], "machine": {**machine, "device": device}}


def _processor() -> str:
    """Return the processor's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

"""Independent jobs on as many cores as there are: what a job is, and who does it."""

from rldistill.scale.backends import Backend, SerialBackend, make_backend
from rldistill.scale.jobs import Job, Outcome, finished_result
from rldistill.scale.stages import run_stage

__all__ = ["Backend", "Job", "Outcome", "SerialBackend", "finished_result", "make_backend", "run_stage"]

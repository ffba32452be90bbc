"""Test kit for policies and adapters of your own: each check is a plain function that a test calls."""

from rldistill.testing.conformance import ConformanceError, check_policy
from rldistill.testing.parity import Reference

__all__ = ["ConformanceError", "Reference", "check_policy"]

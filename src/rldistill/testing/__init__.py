"""Test kit for policies and adapters of your own: each check is a plain function that a test calls."""

from rldistill.testing.conformance import ConformanceError, Reference, check_policy, findings

__all__ = ["ConformanceError", "Reference", "check_policy", "findings"]

"""Runs: a configuration becomes objects, and their work becomes a folder."""

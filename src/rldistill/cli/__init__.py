"""The command line: one verb a file, each parses, calls `runs`, and prints."""

from rldistill.cli.main import main as main

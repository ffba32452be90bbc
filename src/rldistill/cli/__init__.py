"""The command line: one verb a file, each parses, calls the verb, and prints."""

from rldistill.cli.main import main as main

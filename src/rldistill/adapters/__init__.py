"""Policies that other libraries made: their files are read as data, never executed."""

"""From what a user names to policies and tasks."""

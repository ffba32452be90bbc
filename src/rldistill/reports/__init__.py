"""What people look at: curves of a run, and films of policies at play."""

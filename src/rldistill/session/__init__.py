"""What a run folder is: its lock, records, checkpoints, interrupts and machine settings."""

"""What the public face does: one file per verb, from options to files."""

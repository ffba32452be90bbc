"""C: one C99 file and its header, without dependencies and without allocation."""

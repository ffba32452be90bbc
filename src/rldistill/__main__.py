"""`python -m rldistill` is the command `rldistill`."""

from rldistill.cli import main

if __name__ == "__main__":
    main()

"""All measurements, one after the other: `make bench`, or `python bench/run.py --quick`.

They report, they never judge: nothing here passes or fails.
"""

import argparse
import importlib
import time

QUESTIONS = (
    "updates",
    "vectors",
    "images",
    "many_students",
    "sampling",
    "replay",
    "decision",
    "recipes",
    "compiled",
    "collection",
    "control",
    "evaluation",
    "start",
    "storage",
    "usual_way",
    "gpu",
    "memory",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter pieces, fewer rounds: rougher figures")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=QUESTIONS, help="some of them")
    arguments = parser.parse_args()
    importlib.import_module("kit").describe_machine()
    started = time.monotonic()
    for name in arguments.only:
        importlib.import_module(name).main(quick=arguments.quick)
    print(f"{time.monotonic() - started:.0f} seconds in all")


if __name__ == "__main__":
    main()

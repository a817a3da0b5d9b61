"""`python -m spectrafuse.compat SCRIPT ARGS`: run a script written for the published packages on this one."""

from __future__ import annotations

import os
import sys

USAGE = """\
usage: python -m spectrafuse.compat SCRIPT [ARGS ...]

Runs SCRIPT unmodified; in it, `hsi_global_clustering` and `ebgmcr` are the stand-ins of spectrafuse.
"""


def main() -> int:
    """Run the script that the command line names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if not os.path.isfile(arguments[0]):
        print(f"'{arguments[0]}' is not a file; give the path of a Python script.", file=sys.stderr)
        return 2
    from spectrafuse.compat.script import run

    run(arguments[0], arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())

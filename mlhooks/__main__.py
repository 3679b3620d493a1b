"""The program `mlhooks`, also as `python -m mlhooks`."""

from __future__ import annotations

import sys

from mlhooks.stop_signals import end_at_once, ending_at_once


def main() -> int:
    """Run the command line and return its exit code; Ctrl-C leaves no traceback before it begins and after its end."""
    with ending_at_once():
        from mlhooks import cli
    code = cli.main()
    end_at_once(code)
    return code


if __name__ == "__main__":
    sys.exit(main())

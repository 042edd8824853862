"""`python -m minialex`: the same as the `minialex` command."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from minialex.cli import main

        main()
    except KeyboardInterrupt:  # Before the command has begun; later it is the command's to say.
        print("\nstopped", file=sys.stderr)
        sys.exit(130)

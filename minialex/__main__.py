"""`python -m minialex`: the same as the `minialex` command."""

from __future__ import annotations

from minialex.cli import main

if __name__ == "__main__":
    main()

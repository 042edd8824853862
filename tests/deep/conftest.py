"""Tests with many drawn examples; how many, the profile of Hypothesis decides."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # For drawn_rows.

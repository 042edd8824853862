"""What every test stands on: an environment that does not depend on the machine, and skips said aloud."""

from __future__ import annotations

import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

# A shell starts its background jobs with SIGINT ignored, and what is ignored stays so in every child: the
# tests of Ctrl-C would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    import hypothesis
except ImportError:
    pass  # Test files that use it skip themselves, aloud.
else:
    # On a machine of any speed, and nothing written beside the tests.
    quiet: dict[str, Any] = {"deadline": None, "database": None}
    # The same examples every time; and more of them, others for every --hypothesis-seed (make test-deep).
    hypothesis.settings.register_profile("repeatable", **quiet, max_examples=50, derandomize=True)
    hypothesis.settings.register_profile("deep", **quiet, max_examples=1000, print_blob=True)
    hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's caches, and what is printed does not depend on the terminal."""
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("cache"))
        patch.setenv("MINIALEX_CACHE", cache)
        patch.setenv("XDG_CACHE_HOME", cache)
        patch.setenv("COLUMNS", "120")
        patch.setenv("NO_COLOR", "1")
        for name in ("FORCE_COLOR", "MINIALEX_NUM_THREADS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder flower_photos of MINIALEX_DATA; the test is skipped where it is missing."""
    data = os.environ.get("MINIALEX_DATA")
    if not data:
        pytest.skip("MINIALEX_DATA is not set: no real photographs")
    folder = Path(data) / "flower_photos"
    if not folder.is_dir():
        pytest.skip(f"MINIALEX_DATA has no folder {folder.name}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `emulator` where its compiler is missing."""
    if shutil.which(os.environ.get("CXX") or "g++") is None:
        for item in items:
            if item.get_closest_marker("emulator"):
                reason = "no g++, with which the emulator compiles CUDA kernels"
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List each skipped test under its reason: a green run says what it did not show."""
    tests_by_reason: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        tests_by_reason[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if tests_by_reason:
        terminalreporter.section("skipped, and why")
    for reason, tests in sorted(tests_by_reason.items()):
        terminalreporter.line(f"{reason} ({len(tests)}):")
        for test in tests:
            terminalreporter.line(f"    {test}")

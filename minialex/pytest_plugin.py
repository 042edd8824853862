"""A pytest plugin, which pytest finds by itself wherever minialex is installed: the fixture `check_op`.

    def test_my_op(check_op):
        check_op(MyOp, [x, y], {"alpha": 2.0}, reference=my_loops)

It stands outside of `testing`, and imports what the fixture needs when it is asked for: the plugin is loaded
by every run of pytest in its environment, also by those that have nothing to do with minialex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["check_op"]


@pytest.fixture
def check_op() -> Callable[..., Any]:
    """check_op(MyOp, [x, y], {"alpha": 2.0}): the gradients of an operation, and its good manners.

    It is minialex.testing.check_op, which fails the test with its report alone: the traceback would be that
    of the checks, and says nothing about the op. Args, Returns: as there.
    """
    from minialex import testing

    def check(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            return testing.check_op(*args, **kwargs)
        except testing.CheckError as error:
            message = str(error)
        pytest.fail(message, pytrace=False)  # Out here, so that the CheckError is not told a second time.

    return check

"""From the bytes of a pickle to an object that is safe to walk through."""

from __future__ import annotations

from collections.abc import Iterator

from minialex.errors import CheckpointError
from minialex.safe_pickle.machine import Machine
from minialex.safe_pickle.parts import Limits, Names, Persistent, kind_of

__all__ = ["ordered_dict", "read_next_pickle", "read_pickle"]


def read_pickle(
    data: bytes | memoryview,
    names: Names,
    persistent: Persistent | None = None,
    *,
    limits: Limits | None = None,
) -> object:
    """The object in a pickle of protocols 2 to 5, which must end where the data ends.

    Strings of Python 2 become str, each byte a character (Latin-1), so that bytes can be had back. A dict
    that is given attributes (PyTorch's state dicts are) loses them.

    Args:    names: "module.name" -> what the pickle gets for it. Functions and classes of Python can be
             called, with the arguments that the pickle says; they must expect any, and raise CheckpointError.
             persistent: what makes an object of a persistent id; None refuses these.
    Raises:  UnsafePickle naming what is not in the table; CheckpointError for all else that is wrong.
    """
    value, end = read_next_pickle(data, 0, names, persistent, limits=limits)
    if end != len(data):
        raise CheckpointError(f"the pickle ends at byte {end:,}, but {len(data) - end:,} bytes follow it")
    return value


def read_next_pickle(
    data: bytes | memoryview,
    start: int,
    names: Names,
    persistent: Persistent | None = None,
    *,
    limits: Limits | None = None,
) -> tuple[object, int]:
    """The object in the pickle that begins at byte `start`, and where it ends; see `read_pickle`."""
    machine = Machine(memoryview(data), start, names, persistent, limits or Limits())
    value = machine.run()
    _check_nesting(value, machine.limits.depth)
    return value, machine.position


def ordered_dict(pairs: object = ()) -> dict[str, object]:
    """What stands for collections.OrderedDict: a dict, which keeps its order, too.

    Python 2 pickles the items as an argument, a list of pairs; Python 3 adds them afterwards.
    """
    result: dict[str, object] = {}
    if not isinstance(pairs, list | tuple):
        raise CheckpointError(f"an OrderedDict is made of pairs, not of {kind_of(pairs)}")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise CheckpointError("an OrderedDict is made of pairs of a name and a value")
        result[pair[0]] = pair[1]
    return result


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        return iter(list(value.values()))
    return iter(value) if isinstance(value, list | tuple) else iter(())


def _check_nesting(root: object, limit: int) -> None:
    """Raises: CheckpointError if containers hold themselves, or stand in each other more than `limit` deep.

    A loop, not a recursion. What was seen whole is not looked at again, so that a structure of shared parts,
    which has exponentially many paths, takes no longer than its parts are many.
    """
    done: dict[int, int] = {}  # Container -> how deep it goes down.
    under_way: set[int] = set()
    path: list[tuple[object, Iterator[object], list[int]]] = [(root, _children(root), [0])]
    while path:
        value, children, depths = path[-1]
        under_way.add(id(value))
        child = next((c for c in children if isinstance(c, dict | list | tuple)), None)
        if child is None:
            path.pop()
            under_way.discard(id(value))
            done[id(value)] = depth = 1 + max(depths)
            if path:
                path[-1][2].append(depth)
            if depth > limit:
                raise CheckpointError(f"the pickle nests its containers more than {limit} deep")
        elif id(child) in under_way:
            raise CheckpointError("the pickle has a container that holds itself")
        elif id(child) in done:
            depths.append(done[id(child)])
        else:
            path.append((child, _children(child), [0]))

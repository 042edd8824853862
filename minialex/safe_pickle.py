"""A pickle read as data: an interpreter that knows the few opcodes of tensors, numbers, texts and containers.

Python's own `pickle` runs whatever a file names. Here a name is looked up in a table that the caller gives,
and only what stands there is ever called; nothing is imported. A pickle is a program for a machine with a
stack and a memo, so that a short one can ask for much: opcodes, calls, sizes and nesting have limits, and a
structure that holds itself is refused.
"""

from __future__ import annotations

import functools
import inspect
import pickletools
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from minialex.errors import CheckpointError

__all__ = ["Buildable", "Limits", "UnsafePickle", "ordered_dict", "read_next_pickle", "read_pickle", "shown"]

Names: TypeAlias = Mapping[str, Callable[..., object] | object]
Persistent: TypeAlias = Callable[[object], object]


class UnsafePickle(CheckpointError):
    """A pickle that wants to import or call something that is not in the reader's table.

    Attributes: name: what it wants, such as "os.system".
    """

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


@dataclass(frozen=True)
class Limits:
    """What a pickle may cost.

    Args: size: bytes, of the pickle and of all arguments of calls together, where an item of a container
          counts as 64; opcodes: steps of the interpreter; calls: of functions in the table; depth: of lists
          in lists; name: bytes of a module's or a function's name.
    """

    size: int = 64 * 2**20
    opcodes: int = 1_000_000
    calls: int = 100_000
    depth: int = 32
    name: int = 200


class Buildable(ABC):
    """What a function of the table returns if the pickle may give it a state afterwards (opcode BUILD)."""

    @abstractmethod
    def set_state(self, state: object) -> None:
        """Take over the state. Raises: CheckpointError for a state that makes no sense."""


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
    machine = _Machine(memoryview(data), start, names, persistent, limits or Limits())
    value = machine.run()
    _check_nesting(value, machine.limits.depth)
    return value, machine.position


def ordered_dict(pairs: object = ()) -> dict[str, object]:
    """What stands for collections.OrderedDict: a dict, which keeps its order, too.

    Python 2 pickles the items as an argument, a list of pairs; Python 3 adds them afterwards.
    """
    result: dict[str, object] = {}
    if not isinstance(pairs, list | tuple):
        raise CheckpointError(f"an OrderedDict is made of pairs, not of {_kind(pairs)}")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise CheckpointError("an OrderedDict is made of pairs of a name and a value")
        result[pair[0]] = pair[1]
    return result


def shown(text: str) -> str:
    """A text from a file, for a message: in ASCII, so that it cannot steer a terminal, and not too long."""
    return ascii(text)[1:-1][:200]


class _Machine:
    """The stack, the memo, and a method for each opcode."""

    def __init__(
        self, data: memoryview, start: int, names: Names, persistent: Persistent | None, limits: Limits
    ) -> None:
        self.data, self.position, self.limits = data, start, limits
        self.end = min(len(data), start + limits.size)
        self.names, self.persistent = names, persistent
        # Only what the table holds may be called, by identity: never what a call gave back.
        self.callables = {id(value): name for name, value in names.items() if callable(value)}
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.calls, self.handed_over = 0, 0
        self.opcode_at = start

    def run(self) -> object:
        """Interpret up to STOP; the object that is left on the stack."""
        for _ in range(self.limits.opcodes):
            self.opcode_at = self.position
            code = self.take(1)[0]
            if code == _STOP:
                if len(self.stack) != 1 or self.marks:
                    self.fail(f"leaves {len(self.stack)} objects and {len(self.marks)} marks, not one object")
                return self.pop()
            handler = _HANDLERS.get(code)
            if handler is None:
                self.refuse_opcode(code)
            handler(self)
        self.fail(f"has more than {self.limits.opcodes:,} opcodes")

    # ------------------------------------------------------------------------------------- bytes

    def take(self, count: int) -> memoryview:
        if count > self.end - self.position:
            self.fail(f"wants {count:,} more bytes, where {self.end - self.position:,} are left")
        piece = self.data[self.position : self.position + count]
        self.position += count
        return piece

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def line(self) -> str:
        limit = min(self.end, self.position + self.limits.name)
        text = bytes(self.data[self.position : limit])
        length = text.find(b"\n")
        if length < 0:
            self.fail(f"has a name that does not end within {self.limits.name} bytes")
        self.position += length + 1
        return self.decoded(text[:length])

    def decoded(self, text: bytes | memoryview) -> str:
        try:
            return str(text, "utf-8")
        except UnicodeDecodeError:
            self.fail("has a text that is not UTF-8")

    def fail(self, what: str) -> NoReturn:
        raise CheckpointError(f"the pickle {what} (at byte {self.opcode_at:,})")

    def refuse_opcode(self, code: int) -> NoReturn:
        known = next((op for op in pickletools.opcodes if op.code == chr(code)), None)
        if known is not None and known.name == "INST":  # An older GLOBAL and REDUCE in one.
            self.refuse_name(f"{self.line()}.{self.line()}")
        if known is None:
            self.fail(f"has a byte {code:#04x} where an opcode belongs")
        old = ", of protocols 0 and 1, which are not read" if known.proto < 2 else ""
        self.fail(f"has an opcode {known.name}{old}")

    def refuse_name(self, name: str) -> NoReturn:
        raise UnsafePickle(
            name,
            f"the pickle asks for {shown(name)}, which is not among the names that are allowed; nothing was "
            f"run (at byte {self.opcode_at:,})",
        )

    # ------------------------------------------------------------------------------------- stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.fail("takes more from the stack than is on it")
        return self.stack.pop()

    def peek(self) -> Any:
        value = self.pop()
        self.push(value)
        return value

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            self.fail("looks for a mark that is not there")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def pop_kind(self, kind: type[Any], what: str) -> Any:
        value = self.pop()
        if type(value) is not kind:
            self.fail(f"has {_kind(value)} where {what} belongs")
        return value

    # ----------------------------------------------------------------------------------- opcodes

    def do_proto(self) -> None:
        version = self.take(1)[0]
        if not 2 <= version <= 5:
            self.fail(f"is of protocol {version}; protocols 2 to 5 are read")

    def do_frame(self) -> None:
        if self.number("<Q") > self.end - self.position:
            self.fail("has a frame that is longer than what is left")

    def do_mark(self) -> None:
        self.marks.append(len(self.stack))

    def do_long(self) -> None:
        self.push(int.from_bytes(self.take(self.take(1)[0]), "little", signed=True))

    def do_float(self) -> None:
        self.push(struct.unpack(">d", self.take(8))[0])

    def do_append(self) -> None:
        value = self.pop()
        self.extend(self.peek(), [value])

    def do_appends(self) -> None:
        values = self.pop_mark()
        self.extend(self.peek(), values)

    def extend(self, target: object, values: list[Any]) -> None:
        if type(target) is not list:
            self.fail(f"appends to {_kind(target)}, not to a list")
        target.extend(values)

    def do_setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def do_setitems(self) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, flat: list[Any]) -> None:
        target = self.peek()
        if type(target) is not dict or len(flat) % 2:
            self.fail(f"sets {len(flat)} keys and values of {_kind(target)}, not of a dict")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Others can be made so that all have one hash, which makes a dict crawl, or have none.
            if type(key) not in (str, bytes) and not (isinstance(key, int) and -(2**63) <= key < 2**63):
                self.fail(f"has {_kind(key)} as a key; keys are texts and whole numbers")
            target[key] = value

    def do_memoize(self) -> None:
        self.memo[len(self.memo)] = self.peek()

    def put(self, index: int) -> None:
        self.memo[index] = self.peek()

    def get(self, index: int) -> None:
        if index not in self.memo:
            self.fail(f"asks for object {index} of its memo, which is not there")
        self.push(self.memo[index])

    def do_global(self) -> None:
        self.push_name(self.line(), self.line())

    def do_stack_global(self) -> None:
        name, module = self.pop_kind(str, "a name"), self.pop_kind(str, "a module's name")
        if len(module) + len(name) > self.limits.name:
            self.fail(f"has a name of more than {self.limits.name} characters")
        self.push_name(module, name)

    def push_name(self, module: str, name: str) -> None:
        full_name = f"{module}.{name}"
        if full_name not in self.names:
            self.refuse_name(full_name)
        self.push(self.names[full_name])

    def do_call(self) -> None:
        """REDUCE, and NEWOBJ, which makes an object of a class: both call a function with arguments."""
        arguments = self.pop_kind(tuple, "a tuple of arguments")
        function = self.pop()
        if id(function) not in self.callables:
            self.fail(f"calls {_kind(function)}")
        self.charge(arguments)
        try:
            _signature(function).bind(*arguments)
        except TypeError as error:
            name = self.callables[id(function)]
            self.fail(f"calls {name} with {len(arguments)} arguments: {error}")
        self.push(function(*arguments))

    def charge(self, arguments: tuple[Any, ...]) -> None:
        """Count a call and what it is given: a long list from the memo could be given a thousand times."""
        self.calls += 1
        for value in arguments:
            if isinstance(value, str | bytes):
                self.handed_over += len(value)
            elif isinstance(value, dict | list | tuple):
                self.handed_over += 64 * len(value)
        if self.calls > self.limits.calls or self.handed_over > self.limits.size:
            self.fail(
                f"makes {self.calls:,} calls with {self.handed_over:,} bytes of arguments, which is too much"
            )

    def do_build(self) -> None:
        state = self.pop()
        target = self.peek()
        if isinstance(target, Buildable):
            self.charge(state if isinstance(state, tuple) else (state,))
            target.set_state(state)
        elif type(target) is not dict:
            self.fail(f"gives a state to {_kind(target)}")

    def do_persistent(self) -> None:
        if self.persistent is None:
            self.fail("refers to something outside of it")
        self.push(self.persistent(self.pop()))


_STOP = ord(".")

_HANDLERS: dict[int, Callable[[_Machine], object]] = {
    ord(code) if isinstance(code, str) else code: handler
    for code, handler in (
        (0x80, _Machine.do_proto),
        (0x95, _Machine.do_frame),
        ("(", _Machine.do_mark),
        ("0", _Machine.pop),
        ("1", _Machine.pop_mark),
        ("N", lambda m: m.push(None)),
        (0x88, lambda m: m.push(True)),
        (0x89, lambda m: m.push(False)),
        ("K", lambda m: m.push(m.number("<B"))),
        ("M", lambda m: m.push(m.number("<H"))),
        ("J", lambda m: m.push(m.number("<i"))),
        (0x8A, _Machine.do_long),
        ("G", _Machine.do_float),
        ("U", lambda m: m.push(str(m.take(m.number("<B")), "latin-1"))),
        ("T", lambda m: m.push(str(m.take(m.number("<I")), "latin-1"))),
        ("C", lambda m: m.push(bytes(m.take(m.number("<B"))))),
        ("B", lambda m: m.push(bytes(m.take(m.number("<I"))))),
        (0x8E, lambda m: m.push(bytes(m.take(m.number("<Q"))))),
        (0x8C, lambda m: m.push(m.decoded(m.take(m.number("<B"))))),
        ("X", lambda m: m.push(m.decoded(m.take(m.number("<I"))))),
        (0x8D, lambda m: m.push(m.decoded(m.take(m.number("<Q"))))),
        (")", lambda m: m.push(())),
        (0x85, lambda m: m.push((m.pop(),))),
        (0x86, lambda m: m.push((m.pop(), m.pop())[::-1])),
        (0x87, lambda m: m.push((m.pop(), m.pop(), m.pop())[::-1])),
        ("t", lambda m: m.push(tuple(m.pop_mark()))),
        ("]", lambda m: m.push([])),
        ("a", _Machine.do_append),
        ("e", _Machine.do_appends),
        ("}", lambda m: m.push({})),
        ("s", _Machine.do_setitem),
        ("u", _Machine.do_setitems),
        ("q", lambda m: m.put(m.number("<B"))),
        ("r", lambda m: m.put(m.number("<I"))),
        (0x94, _Machine.do_memoize),
        ("h", lambda m: m.get(m.number("<B"))),
        ("j", lambda m: m.get(m.number("<I"))),
        ("c", _Machine.do_global),
        (0x93, _Machine.do_stack_global),
        ("R", _Machine.do_call),
        (0x81, _Machine.do_call),
        ("b", _Machine.do_build),
        ("Q", _Machine.do_persistent),
    )
}


@functools.cache
def _signature(function: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(function)


def _kind(value: object) -> str:
    """What a value is, for messages, which never print one: it may be huge, or hold itself."""
    return f"an object of type {type(value).__name__}"


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

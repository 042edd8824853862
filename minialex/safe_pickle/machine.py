"""The machine that a pickle is a program for: a stack, a memo, and a method for each opcode that is known."""

from __future__ import annotations

import functools
import inspect
import pickletools
import struct
from collections.abc import Callable
from typing import Any, NoReturn

from minialex.errors import CheckpointError
from minialex.safe_pickle.parts import (
    Buildable,
    Limits,
    Names,
    Persistent,
    UnsafePickle,
    kind_of,
    shown,
)

__all__ = ["Machine"]


class Machine:
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

    def popkind_of(self, kind: type[Any], what: str) -> Any:
        value = self.pop()
        if type(value) is not kind:
            self.fail(f"has {kind_of(value)} where {what} belongs")
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
            self.fail(f"appends to {kind_of(target)}, not to a list")
        target.extend(values)

    def do_setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def do_setitems(self) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, flat: list[Any]) -> None:
        target = self.peek()
        if type(target) is not dict or len(flat) % 2:
            self.fail(f"sets {len(flat)} keys and values of {kind_of(target)}, not of a dict")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Others can be made so that all have one hash, which makes a dict crawl, or have none.
            if type(key) not in (str, bytes) and not (isinstance(key, int) and -(2**63) <= key < 2**63):
                self.fail(f"has {kind_of(key)} as a key; keys are texts and whole numbers")
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
        name, module = self.popkind_of(str, "a name"), self.popkind_of(str, "a module's name")
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
        arguments = self.popkind_of(tuple, "a tuple of arguments")
        function = self.pop()
        if id(function) not in self.callables:
            self.fail(f"calls {kind_of(function)}")
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
            self.fail(f"gives a state to {kind_of(target)}")

    def do_persistent(self) -> None:
        if self.persistent is None:
            self.fail("refers to something outside of it")
        self.push(self.persistent(self.pop()))


_STOP = ord(".")

_HANDLERS: dict[int, Callable[[Machine], object]] = {
    ord(code) if isinstance(code, str) else code: handler
    for code, handler in (
        (0x80, Machine.do_proto),
        (0x95, Machine.do_frame),
        ("(", Machine.do_mark),
        ("0", Machine.pop),
        ("1", Machine.pop_mark),
        ("N", lambda m: m.push(None)),
        (0x88, lambda m: m.push(True)),
        (0x89, lambda m: m.push(False)),
        ("K", lambda m: m.push(m.number("<B"))),
        ("M", lambda m: m.push(m.number("<H"))),
        ("J", lambda m: m.push(m.number("<i"))),
        (0x8A, Machine.do_long),
        ("G", Machine.do_float),
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
        ("a", Machine.do_append),
        ("e", Machine.do_appends),
        ("}", lambda m: m.push({})),
        ("s", Machine.do_setitem),
        ("u", Machine.do_setitems),
        ("q", lambda m: m.put(m.number("<B"))),
        ("r", lambda m: m.put(m.number("<I"))),
        (0x94, Machine.do_memoize),
        ("h", lambda m: m.get(m.number("<B"))),
        ("j", lambda m: m.get(m.number("<I"))),
        ("c", Machine.do_global),
        (0x93, Machine.do_stack_global),
        ("R", Machine.do_call),
        (0x81, Machine.do_call),
        ("b", Machine.do_build),
        ("Q", Machine.do_persistent),
    )
}


@functools.cache
def _signature(function: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(function)

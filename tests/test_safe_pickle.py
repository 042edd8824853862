"""The interpreter of pickles: what Python writes comes back, what it knows not is refused."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random
from typing import Any

import pytest

from minialex.errors import CheckpointError
from minialex.safe_pickle import Buildable, Limits, UnsafePickle, ordered_dict, read_next_pickle, read_pickle

NAMES = {"collections.OrderedDict": ordered_dict}

VALUE = {
    "numbers": [0, 1, -1, 255, 256, 65535, 65536, -70000, 2**31, -(2**31), 2**70, -(2**70), 2**1000],
    "floats": [0.0, -1.5, 1e300, float("inf")],
    "others": (None, True, False, "", "é漢", "x" * 300, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}),
    "dicts": {1: {"a": 1, "b": [1]}, 2: "key", -5: collections.OrderedDict(x=1, y=[2])},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_python_pickles_comes_back(protocol: int) -> None:
    assert read_pickle(pickle.dumps(VALUE, protocol), NAMES) == VALUE
    # Without the C pickler's short cuts: no memo entries are left out.
    file = io.BytesIO()
    pickle._Pickler(file, protocol).dump(VALUE)  # type: ignore[attr-defined]
    assert read_pickle(file.getvalue(), NAMES) == VALUE


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes(protocol: int) -> None:
    value = {"short": b"ab", "long": b"x" * 100_000, b"key": 1}
    assert read_pickle(pickle.dumps(value, protocol), {}) == value


def test_strings_of_python_2() -> None:
    """A dict as cPickle wrote CIFAR-10's: {'label': 'a\\xff'}, every byte a character."""
    assert read_pickle(b"\x80\x02}q\x01U\x05labelq\x02T\x02\x00\x00\x00a\xffq\x03s.", {}) == {
        "label": "a\xff"
    }


def test_shared_objects_are_one_object() -> None:
    inner = [1]
    got: Any = read_pickle(pickle.dumps([inner, inner], 2), {})
    assert got[0] is got[1]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_would_run_is_refused_by_name(protocol: int) -> None:
    class Command:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("false",)

    with pytest.raises(UnsafePickle, match=rf"{os.name}\.system") as caught:
        read_pickle(pickle.dumps({"w": Command()}, protocol), NAMES)
    assert caught.value.name == f"{os.name}.system"


def test_the_readers_own_functions() -> None:
    class Point(Buildable):
        def __init__(self, x: object, y: object = 0) -> None:
            self.x, self.y, self.state = x, y, None

        def set_state(self, state: object) -> None:
            self.state = state

    names = {"geometry.Point": Point, "geometry.origin": "a value that is no function"}
    point: Any = read_pickle(b"\x80\x02cgeometry\nPoint\nK\x07\x85RK\x05b.", names)
    assert (point.x, point.y, point.state) == (7, 0, 5)
    assert read_pickle(b"\x80\x02cgeometry\norigin\n.", names) == "a value that is no function"
    with pytest.raises(CheckpointError, match=r"calls geometry\.Point with 3 arguments"):
        read_pickle(b"\x80\x02cgeometry\nPoint\nK\x01K\x02K\x03\x87R.", names)
    with pytest.raises(CheckpointError, match="calls an object of type str"):
        read_pickle(b"\x80\x02cgeometry\norigin\n)R.", names)
    with pytest.raises(CheckpointError, match="calls an object of type Point"):
        read_pickle(b"\x80\x02cgeometry\nPoint\nK\x07\x85R)R.", names)


def test_persistent_ids() -> None:
    assert read_pickle(b"\x80\x02K\x07Q.", {}, lambda key: [key]) == [7]
    with pytest.raises(CheckpointError, match="refers to something outside"):
        read_pickle(b"\x80\x02K\x07Q.", {})


def test_pickles_in_a_row() -> None:
    data = b"junk" + pickle.dumps([1], 2) + pickle.dumps("two", 4) + b"rest"
    first, at = read_next_pickle(data, 4, {})
    second, end = read_next_pickle(data, at, {})
    assert (first, second, data[end:]) == ([1], "two", b"rest")
    with pytest.raises(CheckpointError, match="4 bytes follow it"):
        read_pickle(data[at:], {})


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"", "wants 1 more bytes, where 0 are left"),
        (b"K", "wants 1 more bytes"),
        (b".", "leaves 0 objects and 0 marks"),
        (b"NN.", "leaves 2 objects"),
        (b"(N.", "leaves 1 objects and 1 marks"),
        (b"(0.", "takes more from the stack than is on it"),
        (b"N(\x85.", "takes more from the stack"),
        (b"0", "takes more from the stack"),
        (b"t", "a mark that is not there"),
        (b"h\x00.", "object 0 of its memo"),
        (b"q\x00.", "takes more from the stack"),
        (b"NNa.", "appends to an object of type NoneType"),
        (b")Na.", "appends to an object of type tuple"),
        (b"N(Ne.", "appends to an object of type NoneType"),
        (b"]NNs.", "of an object of type list"),
        (b"}(Nu.", "sets 1 keys and values"),
        (b"}NNs.", "has an object of type NoneType as a key"),
        (b"})Ns.", "has an object of type tuple as a key"),
        (b"}G" + bytes(8) + b"Ns.", "has an object of type float as a key"),
        (b"}\x8a\x09" + b"\x01" * 9 + b"Ns.", "has an object of type int as a key"),
        (b"X\x01\0\0\0\xff.", "not UTF-8"),
        (b"X\x03\0\0\0\xed\xa0\x80.", "not UTF-8"),
        (b"N)R.", "calls an object of type NoneType"),
        (b"NNR.", "where a tuple of arguments belongs"),
        (b"NNb.", "gives a state to"),
        (b"cos\nsystem", "a name that does not end"),
        (b"\x80\x01N.", "protocol 1; protocols 2 to 5"),
        (b"\x80\x06N.", "protocol 6"),
        (b"I5\n.", "opcode INT, of protocols 0 and 1"),
        (b"2", "opcode DUP"),
        (b"\x82\x01", "opcode EXT1"),
        (b"\x92", "opcode NEWOBJ_EX"),
        (b"\x8f", "opcode EMPTY_SET"),
        (b"\x96", "opcode BYTEARRAY8"),
        (b"\xfe", "byte 0xfe where an opcode belongs"),
    ],
)
def test_what_makes_no_sense(code: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_pickle(code, NAMES)


def test_limits() -> None:
    data = pickle.dumps([["x" * 1000]], 2)
    assert read_pickle(data, {}, limits=Limits(size=len(data), opcodes=100, depth=2)) == [["x" * 1000]]
    with pytest.raises(CheckpointError, match="more bytes, where"):
        read_pickle(data, {}, limits=Limits(size=len(data) - 1))
    with pytest.raises(CheckpointError, match="more than 3 opcodes"):
        read_pickle(data, {}, limits=Limits(opcodes=3))
    with pytest.raises(CheckpointError, match="more than 1 deep"):
        read_pickle(data, {}, limits=Limits(depth=1))
    calls = b"\x80\x02](" + b"ccollections\nOrderedDict\n)R" * 3 + b"e."
    with pytest.raises(CheckpointError, match="makes 3 calls"):
        read_pickle(calls, NAMES, limits=Limits(calls=2))


def test_damaged_pickles_give_one_kind_of_error() -> None:
    data = pickle.dumps(VALUE, 2) + pickle.dumps(VALUE, 4)
    draw = random.Random(0)
    for _ in range(3000):
        copy = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            copy[draw.randrange(len(copy))] = draw.randrange(256)
        try:
            _, at = read_next_pickle(bytes(copy), 0, NAMES)
            read_pickle(bytes(copy)[at:], NAMES)
        except CheckpointError:
            continue

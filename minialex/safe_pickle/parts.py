"""What the reader of pickles and the functions of its table share: limits, errors, and words for messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from minialex.errors import CheckpointError

__all__ = ["Buildable", "Limits", "Names", "Persistent", "UnsafePickle", "kind_of", "shown"]

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


def shown(text: str) -> str:
    """A text from a file, for a message: in ASCII, so that it cannot steer a terminal, and not too long."""
    return ascii(text)[1:-1][:200]


def kind_of(value: object) -> str:
    """What a value is, for messages, which never print one: it may be huge, or hold itself."""
    return f"an object of type {type(value).__name__}"

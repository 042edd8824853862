"""A pickle read as data: an interpreter that knows the few opcodes of tensors, numbers, texts and containers.

Python's own `pickle` runs whatever a file names. Here a name is looked up in a table that the caller gives,
and only what stands there is ever called; nothing is imported. A pickle is a program for a machine with a
stack and a memo, so that a short one can ask for much: opcodes, calls, sizes and nesting have limits, and a
structure that holds itself is refused.
"""

from minialex.safe_pickle.parts import Buildable, Limits, UnsafePickle, shown
from minialex.safe_pickle.reading import ordered_dict, read_next_pickle, read_pickle

__all__ = ["Buildable", "Limits", "UnsafePickle", "ordered_dict", "read_next_pickle", "read_pickle", "shown"]

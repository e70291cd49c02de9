"""What an object holds on to: the ways on which a name can be reached from it."""

import gc
from collections import deque
from collections.abc import Iterator
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)

_PASSED_BY = (
    BuiltinFunctionType,
    CodeType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
    type,
)
"""What belongs to the program and not to what it holds; through these everything is reached."""


def holders_of(root: object, name: str) -> list[str]:
    """Return what below *root* holds the string *name*: each the types on the way to it, nearest last.

    It sees through objects, containers, closures and waiting coroutines, weak references not.
    """
    found: list[str] = []
    came_from: dict[int, tuple[object, int | None]] = {id(root): (root, None)}
    to_see = deque([root])
    while to_see:
        here = to_see.popleft()
        for one in _below(here):
            if isinstance(one, str):
                if one == name:
                    found.append(_way(came_from, here))
            elif id(one) not in came_from and not isinstance(one, _PASSED_BY):
                came_from[id(one)] = (one, id(here))
                to_see.append(one)
    return found


def _below(here: object) -> Iterator[object]:
    if isinstance(
        here, FunctionType
    ):  # its globals are its module's, which holds no state of a server
        yield from (here.__closure__ or (), here.__defaults__ or (), here.__kwdefaults__ or {})
    else:
        yield from gc.get_referents(here)


def _way(came_from: dict[int, tuple[object, int | None]], last: object) -> str:
    words = []
    at: int | None = id(last)
    while at is not None:
        one, at = came_from[at]
        words.append(type(one).__qualname__)
    return " > ".join(reversed(words))

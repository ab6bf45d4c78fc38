"""Placeholders: factories that a library requires for provided values, and that return nothing themselves."""

import dis

from diator.errors import NotProvidedError

_GIVES = frozenset({"RETURN_VALUE", "RETURN_CONST", "YIELD_VALUE"})


def is_placeholder(factory: object) -> bool:
    """Tell whether a factory does nothing but raise `~diator.NotProvidedError`, without running it.

    For plugins of libraries that want a factory for each value that senders bring with ``app.using(provide=...)``:
    where no sender is, such as in a worker, there is no provider.
    """
    code = getattr(factory, "__code__", None)
    if code is None or NotProvidedError.__name__ not in code.co_names:
        return False
    return _GIVES.isdisjoint(step.opname for step in dis.get_instructions(code))

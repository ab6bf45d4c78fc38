"""The fields of entries in streams. Other programs may write any bytes.

``e`` is the event and ``k`` its key; dead letters also have ``w``, their reason, and ``d``, their delivery count.
``x`` says what is wrong with an entry that could not be stored unchanged.
"""


def body_of(values: dict[bytes, bytes]) -> bytes:
    """Return the event, or all fields of an entry that has none."""
    body = values.get(b"e")
    return b"\n".join(b"%b=%b" % pair for pair in values.items()) if body is None else body


def find_read_error(values: dict[bytes, bytes], own: bool) -> str | None:
    """Return what is wrong with the fields of an entry; ``own``: a script of this subscription wrote it."""
    if own and b"x" in values:
        return values[b"x"].decode(errors="backslashreplace") or "it is damaged"
    if not values:
        return "its entry was deleted from the stream"
    if b"e" not in values:
        names = b", ".join(values).decode(errors="backslashreplace")
        return f"the entry has no field 'e', which holds the event; it has: {names}"
    return None


def as_count(value: bytes) -> int:
    """Return a stored count; zero for what is not a count."""
    return int(value) if len(value) < 10 and value.isdigit() else 0

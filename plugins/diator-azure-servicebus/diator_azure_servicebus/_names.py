"""Names: what topics and subscriptions are called in a namespace, and the ids of messages and sessions.

A name is kept where the service takes it. Otherwise each character that it does not take becomes a hyphen, the name is
cut, and a hyphen and the first ten hexadecimal digits of the SHA-256 of the whole name follow, so that two names never
become one. That is stable: the same name always gives the same result.
"""

import re
from hashlib import sha256
from uuid import NAMESPACE_OID, uuid5

MAX_PATH = 260
"""Characters of a queue or topic (Service Bus quotas)."""
MAX_SUBSCRIPTION = 50
"""Characters of a subscription of a topic."""
MAX_ID = 128
"""Characters of a message id, a session id and a partition key."""
RETRY = ".retry"

_FITS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DIGEST = re.compile(r"-[0-9a-f]{10}")
_ODD = re.compile(r"[^A-Za-z0-9._-]")


def path_of(name: str, prefix: str = "") -> str:
    """Name a queue or a topic; there is room for `RETRY` behind it."""
    return _fitting(prefix + name, MAX_PATH - len(RETRY))


def subscription_of(name: str, prefix: str = "") -> str:
    """Name the subscription of a topic."""
    return _fitting(prefix + name, MAX_SUBSCRIPTION)


def is_subscription_of(subscription: str, queue: str) -> bool:
    """Whether a topic's subscription and a queue belong to one handler: `subscription_of` and `path_of` one name."""
    mine, other = subscription.lower(), queue.lower()
    return mine == _fitting(queue, MAX_SUBSCRIPTION).lower() or (
        mine[-11:] == other[-11:] and _DIGEST.fullmatch(mine[-11:]) is not None
    )


def message_id_of(event_id: str) -> str:
    """Return the message id: the id of the event if it fits."""
    return _short(event_id)


def session_of(key: str | None, event_id: str) -> str:
    """Return the session id: the key; without one, a session of the message's own, so that it waits for no other."""
    return _short(key) if key else _short(f"~{event_id}" if key is None else "~")


def partition_of(key: str | None) -> str | None:
    """Return the partition key, which is used without sessions."""
    return _short(key) if key else None


def copy_id_of(message_id: str, subscription: str, failures: int) -> str:
    """Return the message id of a retry. It is the same if the same failure is recorded twice, and differs otherwise."""
    return str(uuid5(NAMESPACE_OID, f"{message_id}\n{subscription}\n{failures}"))


def _fitting(name: str, longest: int) -> str:
    if len(name) <= longest and _FITS.fullmatch(name):
        return name
    digest = sha256(name.encode()).hexdigest()[:10]
    return f"{_ODD.sub('-', name)[: longest - 11].strip('._-') or 'x'}-{digest}"


def _short(text: str) -> str:
    if len(text) <= MAX_ID:
        return text
    return f"{text[: MAX_ID - 41]}-{sha256(text.encode()).hexdigest()[:40]}"

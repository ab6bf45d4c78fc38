"""What helps an application's own log lines: the ids and the type of the message that is being handled."""

import logging

from diator.context import current_context
from diator.delivery.work_queue import current_job

__all__ = ["ContextFilter"]


class ContextFilter(logging.Filter):
    """Adds the ids and the type of the message that is being handled to each record, as fields.

    Put it on a log handler, so that it sees the records of all loggers: ``handler.addFilter(ContextFilter())``. The
    fields are ``diator_message_id``, ``diator_correlation_id`` and ``diator_attempt``, in a worker also
    ``diator_subscription``, and for a brokered event ``diator_message_type``, its wire name. A record that has one of
    them keeps it, and outside a handler there are none. In process a message has ids only if its handler, or a hook,
    asks for the context. ``diator run`` has the filter already.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields. Drops no record."""
        context = current_context.get()
        if context is not None:
            job = current_job.get(None)
            envelope = None if job is None or job.context is not context else job.envelope
            fields = {
                "diator_message_id": context.message_id,
                "diator_correlation_id": context.correlation_id,
                "diator_attempt": context.attempt,
                "diator_subscription": context.subscription,
                "diator_message_type": None if envelope is None else envelope.type,
            }
            for name, value in fields.items():
                if value is not None:
                    vars(record).setdefault(name, value)
        return True

"""Support for an application's own log lines: the ids and the type of the current message."""

import logging

from diator.context import current_context
from diator.delivery.work_queue import current_job

__all__ = ["ContextFilter"]


class ContextFilter(logging.Filter):
    """Adds the ids and the type of the current message to each log record, as fields.

    Add it to a log handler, so that it applies to all loggers: ``handler.addFilter(ContextFilter())``. The fields are
    ``diator_message_id``, ``diator_correlation_id`` and ``diator_attempt``, in a worker also ``diator_subscription``,
    and for a brokered event ``diator_message_type``, its wire name. It does not overwrite existing fields, and adds
    none outside handlers. In process, a message has ids only if its handler or a hook uses the context. ``diator run``
    already adds this filter.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields. Drops no records."""
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

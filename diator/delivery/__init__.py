"""Delivery: from an event to a message, and from a message to what its handler makes of it.

In reading order: `catalog` (what an app publishes and handles over its broker), `codec` (events as JSON), `publisher`
(events leave), `reading` (messages arrive), `lanes` (who is next), `intake` (how many are taken), `consumer` (one
subscription) with `alone`, `follow_up`, `outcomes` and `settler`, `outage`, `watchdog`, and `worker` (all consumers of
an app). `telling` tells hooks; `operations` are what a person does at dead letters.
"""

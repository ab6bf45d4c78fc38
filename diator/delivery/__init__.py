"""Delivery: from an event to a message, and from a message to what its handler makes of it.

In reading order: `catalog` (what an app publishes and handles over its broker), `codec` (events as JSON) with
`structs` and `models` (how msgspec and pydantic carry them), `samples` and `differences` (events that are made up,
and what becomes of them) and `exact` (those of plain types), `publisher` (events leave), `subscription_creation`
(publishing waits until subscriptions exist), `unsubscribed` (topics without a subscription), `reading` (messages
arrive), `handling` (one message and its handler) with `alone`, `outcomes` (and `error_texts`), `fate` and
`follow_up`, `lanes` (who is next), `intake` (how many are taken), `settler`, `leases`, `serving` (all of these around
one receiver), `consumer` (one subscription), and `worker` (all consumers of an app) with `outage` and `watchdog`.
`telling` tells hooks; `operations` are what a person does at dead letters.
"""

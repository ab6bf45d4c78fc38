"""Delivery: from an event to a message, and from a message to what its handler makes of it.

In reading order: `catalog` (what an app publishes and handles over its broker), `catalog_builder` (which inspects it,
and finds what is wrong), `codec` (events as JSON) with
`structs` and `models` (how msgspec and pydantic carry them), `samples` and `differences` (events that are made up,
and what becomes of them) and `exact` (those of plain types), `publisher` (events leave), `connection` (what the core
does around every broker: opening, closing, publishing to its end and in time), `subscription_creation` (publishing
waits until subscriptions exist), `unsubscribed` (topics without a subscription), and `reading` (messages arrive).

The worker, from the inside out: `work_queue` (which message is next), `outcome_reporter` (what becomes of a message)
with `error_texts`, `leases`, `settlement`, `handler_runner` and `follow_up`, `prefetcher`, `receiver_loop` (all of
these around one receiver), `consumer` (one subscription), and `worker` (all consumers of an app) with `worker_state`,
`pause`, `outage` and `watchdog`.

With a store: `store_checks`, `store_sender` (events become rows), `outbox`, and `relay` (rows become messages) with
`relay_rows`, `relay_wakeups` and `relay_failures`. `messaging` joins all of it for one app, and `operations` lists,
replays and purges dead letters.
"""

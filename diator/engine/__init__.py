"""The engine: from what the user registered to one callable for each kind of message.

In reading order: `registrations` (what the user said), `hints` and `signature` (what the hints say), `arguments`
(type arguments of messages), `maps` (who handles what), `unreadable` (user code that raises where it is looked at),
`registry` (what is in), `handler_checks` and `middleware_checks` (what is wrong with one by itself),
`decorator_checks` (with a call of a decorator), `wiring` (where each argument comes from), `subclasses` (of a class of
events), `event_graph` (what a message can cause), `provided_values` (what only senders provide), `check` (all that is
wrong), `plan` (one callable for each message) with its parts `calls`, `publish` and `events`, `unit` and `resources`
(the unit of work as it runs, and the container around it), `outbound` (its brokered events), `immediate` (handlers
for which the container need not be awaited), `threads` (sync handlers), `stream` (a unit that is a block), `wrapping`
(what hooks put around sending and handling) and `dispatch` (the look-up of a plan).
"""

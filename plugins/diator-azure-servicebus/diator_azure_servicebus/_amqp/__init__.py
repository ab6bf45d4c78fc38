"""AMQP 1.0 values and the sections of messages, with every type that there is: the SDK knows most, and forgets which.

In reading order: `values`, `encoding`, `decoding`, `sections`. The server for tests is built on them too.
"""

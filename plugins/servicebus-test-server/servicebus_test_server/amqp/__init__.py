"""AMQP 1.0 values, with every type that there is. In reading order: `values`, `encoding`, `decoding`."""

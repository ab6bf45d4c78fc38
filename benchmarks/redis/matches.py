"""Who is measured against whom, and what is wanted."""

from benchmarks.contest import Match, peer, run
from benchmarks.redis import ours, raw

_REDIS = ("redis==8.1.0", "hiredis==3.5.0")
_ONE_XADD = "XADD one by one"
_READ_100 = "XREADGROUP of 100, one XACK for all"

MATCHES = (
    Match(
        "publish batches of 100",
        "pipelines of 100 XADD",
        run(ours.publish_batches),
        run(raw.publish_batches),
        limit=0.75,
    ),
    Match(
        "publish from 100 tasks, each call confirmed",
        _ONE_XADD,
        run(ours.publish_at_the_same_time),
        run(raw.publish_one_by_one),
        limit=4,
        count=10_000,
        their_count=5_000,
    ),
    Match(
        "one publish alone, latency",
        "XADD",
        run(ours.publish_alone),
        run(raw.publish_alone),
        limit=1.2,
        count=3_000,
        is_latency=True,
    ),
    Match("handle, one at a time", _READ_100, run(ours.consume), run(raw.consume), limit=0.45),
    Match(
        "handle, one at a time",
        f"{_READ_100}, without time-outs",
        run(ours.consume),
        run(raw.consume_without_timeouts),
        limit=None,
    ),
    Match(
        "handle ordered by key, ten at a time, a scope of dishka with a resource for each",
        f"{_READ_100}, neither keys nor scopes",
        run(ours.consume_ordered),
        run(raw.consume),
        limit=0.2,
    ),
    Match("publish and handle at the same time", "both at the same time", run(ours.both), run(raw.both), limit=0.45),
    Match(
        "publish to handler, one in flight, latency",
        "XADD to XREADGROUP that waits",
        run(ours.one_in_flight),
        run(raw.one_in_flight),
        limit=1.6,
        count=2_000,
        is_latency=True,
    ),
    Match(
        "publish to Pub/Sub",
        "PUBLISH one by one",
        run(ours.publish_to_channel),
        run(raw.publish_to_channel),
        limit=0.8,
        count=5_000,
    ),
    Match(
        "publish to Pub/Sub",
        "diator 0.1.2",
        run(ours.publish_to_channel),
        peer("diator==0.1.2", "redis_diator_0_1", *_REDIS),
        limit=None,
        count=5_000,
        their_count=2_000,
        rounds=5,
    ),
    Match(
        "handle, one at a time",
        "FastStream 0.7.8, a stream subscriber",
        run(ours.consume),
        peer("faststream[redis]==0.7.8", "redis_faststream", *_REDIS),
        limit=10,
        their_count=2_000,
        rounds=5,
    ),
    Match(
        "handle, one at a time",
        "taskiq 0.13.0, RedisStreamBroker of taskiq-redis 1.2.4",
        run(ours.consume),
        peer("taskiq-redis==1.2.4", "redis_taskiq", "taskiq==0.13.0", *_REDIS),
        limit=10,
        their_count=2_000,
        rounds=5,
    ),
    Match(
        "handle, one at a time",
        "dramatiq 2.2.1, eight threads",
        run(ours.consume),
        peer("dramatiq[redis]==2.2.1", "redis_dramatiq", *_REDIS),
        limit=10,
        their_count=2_000,
        rounds=5,
    ),
)

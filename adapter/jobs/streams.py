"""The four streams and nine consumers: created, or brought to the settings, whenever a process connects."""

from typing import Any, Final

import structlog

from adapter.jobs.connection import Connection, Refused
from adapter.jobs.lanes import LANES
from adapter.settings import Settings

_log = structlog.get_logger()

JOBS: Final = "MIAAS_JOBS"
"""Work queue: a message per job that has no result yet."""
INPUTS: Final = "MIAAS_INPUTS"
"""Chunks of inputs that are too large for a message, and inputs of failed jobs."""
RESULTS: Final = "MIAAS_RESULTS"
"""An immutable result per job, and below it the chunks of a large one."""
NOTES: Final = "MIAAS_NOTES"
"""Idempotency keys, and which deliveries do not count as attempts."""

LONGEST_TIMEOUT_S: Final = 7 * 86_400
"""Latest deadline that a job may ask for."""
_NANOSECONDS: Final = 1_000_000_000
_NAME_IN_USE = 10058
_OUT_OF_STORAGE = 10047
_LEAST_BYTES = 4 << 20
_SLOW_S = 10.0


async def set_up(connection: Connection, settings: Settings) -> None:
    """Create what is missing, change what differs. Raises QueueUnavailable."""
    for config in _streams(settings):
        await _create_stream(connection, config)
    for lane in LANES:
        config = {
            "durable_name": lane.consumer,
            "filter_subject": f"miaas.jobs.{lane.tokens}.>",
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(settings.ack_wait_s * _NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": -1,
            "replay_policy": "instant",
        }
        body = {"stream_name": JOBS, "config": config}
        await connection.api(f"CONSUMER.DURABLE.CREATE.{JOBS}.{lane.consumer}", body, _SLOW_S)


def _streams(settings: Settings) -> list[dict[str, Any]]:
    common = {
        "storage": "file",
        "num_replicas": settings.queue_replicas,
        "allow_direct": True,
        "max_msgs_per_subject": 1,
        "duplicate_window": 120 * _NANOSECONDS,
    }
    queue = {
        "name": JOBS,
        "subjects": ["miaas.jobs.>"],
        "retention": "workqueue",
        # Nothing that was accepted gives way to what comes later.
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs": settings.queue_max_jobs,
        "max_bytes": settings.queue_max_bytes,
    }
    inputs = {
        "name": INPUTS,
        "subjects": ["miaas.inputs.>"],
        "discard": "new",
        "max_bytes": settings.queue_max_bytes,
        "max_age": _age(LONGEST_TIMEOUT_S + settings.result_retention_s),
    }
    # A result gives way to no other: whoever writes one names the message that must stand there, or none.
    results = {
        "name": RESULTS,
        "subjects": ["miaas.results.>"],
        "max_age": _age(settings.result_retention_s),
    }
    notes = {
        "name": NOTES,
        "subjects": ["miaas.keys.>", "miaas.excuses.>"],
        "max_age": _age(settings.result_retention_s + settings.job_timeout_s),
    }
    return [{**common, **stream} for stream in (queue, inputs, results, notes)]


def _age(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)


async def _create_stream(connection: Connection, config: dict[str, Any]) -> None:
    """JetStream reserves a stream's bytes: where the disk is small they are halved until they fit."""
    name = config["name"]
    while True:
        try:
            await connection.api(f"STREAM.CREATE.{name}", config, _SLOW_S)
            return
        except Refused as error:
            if error.number == _NAME_IN_USE:
                break
            if error.number != _OUT_OF_STORAGE or config.get("max_bytes", 0) < _LEAST_BYTES:
                raise
        config = {**config, "max_bytes": config["max_bytes"] // 2}
        _log.warning("the disk is small", stream=name, max_bytes=config["max_bytes"])
    await _update_stream(connection, config)


async def _update_stream(connection: Connection, config: dict[str, Any]) -> None:
    name = config["name"]
    standing = (await connection.api(f"STREAM.INFO.{name}"))["config"]
    if all(standing.get(key) == value for key, value in config.items()):
        return
    try:
        await connection.api(f"STREAM.UPDATE.{name}", {**standing, **config}, _SLOW_S)
    except Refused as error:
        if error.number != _OUT_OF_STORAGE:
            raise
        # What the disk had room for when the stream was created stands.
        kept = {**standing, **config, "max_bytes": standing["max_bytes"]}
        await connection.api(f"STREAM.UPDATE.{name}", kept, _SLOW_S)

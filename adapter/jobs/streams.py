"""The four streams and nine consumers: created, or brought to the settings, whenever a process connects."""

from typing import Any, Final

import structlog

from adapter.jobs.connection import NOT_FOUND, Connection, Refused
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
_OUT_OF_STORAGE = 10047
_LEAST_BYTES = 4 << 20
_SLOW_S = 10.0


async def set_up(connection: Connection, settings: Settings) -> None:
    """Create what is missing, change what differs. Raises QueueUnavailable.

    What stands as it should is not touched: JetStream would write it anew, and a full disk has no room.
    """
    for config in _streams(settings):
        await _bring_about(connection, config)
    found = await connection.api(f"CONSUMER.LIST.{JOBS}")
    standing = {consumer["name"]: consumer["config"] for consumer in found["consumers"] or ()}
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
        if not _holds(standing.get(lane.consumer, {}), config):
            body = {"stream_name": JOBS, "config": config}
            await connection.api(f"CONSUMER.DURABLE.CREATE.{JOBS}.{lane.consumer}", body, _SLOW_S)


def _streams(settings: Settings) -> list[dict[str, Any]]:
    common = {
        "storage": "file",
        "num_replicas": settings.queue_replicas,
        "allow_direct": True,
        "max_msgs_per_subject": 1,
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
        # In case several send the same idempotency key: longer than a job takes from its key to its place.
        "duplicate_window": 120 * _NANOSECONDS,
    }
    inputs = {
        "name": INPUTS,
        "subjects": ["miaas.inputs.>"],
        "discard": "new",
        "max_bytes": settings.queue_max_bytes,
        # A failed job's input goes not long after its result.
        "allow_msg_ttl": True,
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


async def _bring_about(connection: Connection, config: dict[str, Any]) -> None:
    """Create the stream, or change the one that stands."""
    try:
        standing = (await connection.api(f"STREAM.INFO.{config['name']}"))["config"]
    except Refused as error:
        if error.status != NOT_FOUND:
            raise
        await _create(connection, config)
    else:
        await _update(connection, standing, config)


async def _create(connection: Connection, config: dict[str, Any]) -> None:
    """JetStream reserves what a stream may hold: where the disk is small, it is halved until it fits.

    Of what fits a quarter is taken: results need room as well.
    """
    wanted = fitting = config.get("max_bytes", 0)
    while True:
        try:
            standing = await connection.api(f"STREAM.CREATE.{config['name']}", config, _SLOW_S)
            break
        except Refused as error:
            if error.number != _OUT_OF_STORAGE or fitting < _LEAST_BYTES:
                raise
        fitting //= 2
        config = {**config, "max_bytes": fitting}
    if fitting < wanted:
        _log.warning("the disk is small", stream=config["name"], max_bytes=fitting // 4, wanted=wanted)
        await _update(connection, standing["config"], {**config, "max_bytes": fitting // 4})


async def _update(connection: Connection, standing: dict[str, Any], config: dict[str, Any]) -> None:
    if _holds(standing, config):
        return
    try:
        await connection.api(f"STREAM.UPDATE.{config['name']}", {**standing, **config}, _SLOW_S)
    except Refused:
        kept = standing["max_bytes"]
        if config.get("max_bytes", kept) == kept:
            raise
        # What the disk had room for when the stream was created stands.
        await _update(connection, standing, {**config, "max_bytes": kept})


def _holds(standing: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether all that is wanted is so already."""
    return all(standing.get(key) == value for key, value in config.items())

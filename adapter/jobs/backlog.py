"""How much there is to do, in JetStream's words and in ours."""

import time
from datetime import datetime
from typing import Any

from adapter.core.types import Backlog
from adapter.jobs.connection import Connection
from adapter.jobs.lanes import BY_CONSUMER
from adapter.jobs.streams import JOBS


async def lanes(connection: Connection) -> dict[str, Any]:
    """Each lane's consumer as JetStream describes it. Raises QueueUnavailable."""
    answer = await connection.api(f"CONSUMER.LIST.{JOBS}")
    return {consumer["name"]: consumer for consumer in answer["consumers"] if consumer["name"] in BY_CONSUMER}


async def backlog(connection: Connection) -> Backlog:
    """See `JobQueue.backlog`: the stream holds a message for each job without a result, oldest first."""
    stream = (await connection.api(f"STREAM.INFO.{JOBS}"))["state"]
    consumers = (await lanes(connection)).values()
    oldest_s = 0.0
    if stream["messages"]:
        oldest_s = max(0.0, time.time() - datetime.fromisoformat(stream["first_ts"]).timestamp())
    return Backlog(
        waiting=sum(consumer["num_pending"] for consumer in consumers),
        running=sum(consumer["num_ack_pending"] for consumer in consumers),
        oldest_s=oldest_s,
    )

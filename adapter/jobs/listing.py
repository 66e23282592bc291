"""A client's jobs, newest first: their ids stand in the subjects of two streams, in order of submission."""

import asyncio
from collections.abc import Mapping
from typing import Any

from adapter.core.errors import InvalidInput, JobNotFound
from adapter.jobs.connection import SLOW_TIMEOUT_S, Connection
from adapter.jobs.ids import lane_of, token
from adapter.jobs.lanes import LANES
from adapter.jobs.streams import JOBS, RESULTS

_SLICE = 1000
_PAST_THE_END = 1 << 31


async def newest(connection: Connection, client: str, limit: int, before: str) -> list[str]:
    """Up to `limit` ids of the client's jobs, newest first, those older than `before` if that is not "".

    Raises InvalidInput when `before` is no id.
    """
    if before:
        try:
            lane_of(before)
        except JobNotFound:
            raise InvalidInput("cursor: not one that a page named as its `next`") from None
    name = token(client)
    sources = [(JOBS, f"miaas.jobs.{lane.tokens}.{name}.*") for lane in LANES]
    sources.append((RESULTS, f"miaas.results.{name}.*"))
    found = await asyncio.gather(*(_newest_of(connection, *source, limit, before) for source in sources))
    return sorted({job_id for ids in found for job_id in ids}, reverse=True)[:limit]


async def _newest_of(
    connection: Connection, stream: str, subjects: str, limit: int, before: str
) -> list[str]:
    """JetStream sorts a stream's subjects and cuts a slice out of them: it is walked from its end."""
    end = int((await _subjects(connection, stream, subjects, _PAST_THE_END)).get("total", 0))
    ids: list[str] = []
    while end > 0 and len(ids) < limit:
        begin = max(0, end - _SLICE)
        slice_ = await _subjects(connection, stream, subjects, begin)
        names = sorted(subject.rpartition(".")[2] for subject in slice_["state"].get("subjects") or {})
        ids += [name for name in reversed(names[: end - begin]) if not before or name < before]
        end = begin
    return ids[:limit]


async def _subjects(connection: Connection, stream: str, subjects: str, offset: int) -> Mapping[str, Any]:
    content = {"subjects_filter": subjects, "offset": offset}
    answer: Mapping[str, Any] = await connection.api(f"STREAM.INFO.{stream}", content, SLOW_TIMEOUT_S)
    return answer

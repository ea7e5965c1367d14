"""A client of Feed in Python, which loses no event and handles none twice when the service restarts or the network
breaks. docs/clients.md explains it.

    feed_client.py watch TOPIC [CURSOR]   prints "CURSOR ID BODY" for each event: all of them, or those after CURSOR
    feed_client.py upload TOPIC           stores each line "ID BODY" of standard input, 100 in an upload

Environment: FEED_ADDRESS, host:port of the service (127.0.0.1:50051); HEARTBEAT_SECONDS, how often the service shows
that a silent watch is alive (10).
"""

import asyncio
import itertools
import os
import random
import sys
import time

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from feed.v1 import feed_pb2, feed_pb2_grpc

# A watch that brings neither an event nor a heartbeat for this many heartbeats is given up.
MISSED_HEARTBEATS = 3
# Seconds. The service's FEED_DEDUP_WINDOW: an event that is sent again within it is not stored again.
DEDUP_WINDOW = 120
EVENTS_PER_UPLOAD = 100
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5

OPTIONS = [
    # A watch sends nothing, so only pings notice that the network is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC sends only a few pings while it sends no data, as during a watch; 0 lifts that limit.
    ("grpc.http2.max_pings_without_data", 0),
    # By default, gRPC waits for up to two minutes before it connects again, whatever the loop below does.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # The loops below try again: only they know the cursor and the deduplication window.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
]

TRANSIENT_REASONS = {
    "DRAINING",
    "MOVED",
    "STORAGE_FULL",
    "STORE_UNAVAILABLE",
    "INSERT_FAILED",
    "KEYS_UNAVAILABLE",
    "LIMIT_EXCEEDED",
}
# Of errors without a reason. gRPC says UNKNOWN of some streams that broke, and of a proxy's HTTP status 500.
TRANSIENT_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


async def watch(feed, topic, cursor, heartbeat, handle):
    """Hands each event after the cursor to handle, in order, once. Ends only with an error that trying again does not
    help."""
    failures = 0
    while True:
        try:
            async for event in follow(feed, request_after(cursor, topic, heartbeat), heartbeat * MISSED_HEARTBEATS):
                failures = 0
                if event.id:  # a heartbeat has no id
                    handle(event)
                cursor = event.cursor  # only now: a crash before this line repeats the event and loses nothing
            print("the watch broke and resumes: it ended", file=sys.stderr)
        except asyncio.TimeoutError:
            print("the watch broke and resumes: it was silent", file=sys.stderr)
        except grpc.aio.AioRpcError as error:
            if not is_transient(error):
                raise
            print(f"the watch broke and resumes: {explain(error)}", file=sys.stderr)
        await asyncio.sleep(pause_after(failures))
        failures += 1


def request_after(cursor, topic, heartbeat):
    start = {"after_cursor": cursor} if cursor else {"position": feed_pb2.START_POSITION_EARLIEST}
    return feed_pb2.WatchRequest(topic=topic, heartbeat=Duration(seconds=heartbeat), **start)


async def follow(feed, request, patience):
    """Yields what one watch brings, heartbeats too. There is no deadline: a watch lasts for as long as something comes.
    """
    call = feed.Watch(request)
    try:
        # The time that handling takes is between two reads, so it does not count as the service's silence.
        while (event := await asyncio.wait_for(call.read(), patience)) is not grpc.aio.EOF:
            yield event
    finally:
        call.cancel()


async def upload(feed, events):
    """Stores the events, each once, however often the service goes away."""
    end = time.monotonic() + DEDUP_WINDOW
    for failures in itertools.count():
        try:
            return await feed.UploadEvents(iter(events), timeout=end - time.monotonic())
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            pause = pause_after(failures)
            if not is_transient(error) or time.monotonic() + pause > end:
                raise
            print(f"the upload broke and is sent again, with the same ids: {explain(error)}", file=sys.stderr)
        await asyncio.sleep(pause)


def is_transient(error):
    """True when the same request may succeed later. docs/guide.md has the table."""
    if isinstance(error, asyncio.CancelledError):
        # grpcio raises it, too, for an upload that the service or the network ends while it is being sent. Then nobody
        # has cancelled this task.
        return not asyncio.current_task().cancelling()
    reason = info_of(error).reason
    return reason in TRANSIENT_REASONS if reason else error.code() in TRANSIENT_CODES


def info_of(error):
    """The ErrorInfo of the service; an empty one where the error comes from elsewhere, such as a proxy."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = ErrorInfo()
        if detail.Unpack(info) and info.domain == "feed.v1":
            return info
    return ErrorInfo()


def pause_after(failures):
    """Doubles with each failure in a row. It is random, so that the clients of a service that restarts do not all come
    back at the same moment."""
    pause = min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE)
    return random.uniform(pause / 2, pause)


def explain(error):
    """Says what went wrong, and which cursors are left to go on from."""
    if isinstance(error, asyncio.CancelledError):
        return "it ended while it was being sent"
    info = info_of(error)
    text = f"{error.code().name} {info.reason}: {error.details()}"
    for name in ("earliest", "head"):
        if name in info.metadata:
            text += f"; {name} cursor: {info.metadata[name]}"
    return text


def show(event):
    print(event.cursor, event.id, event.body, flush=True)


async def upload_lines(feed, topic):
    lines = (line.rstrip("\n").partition(" ") for line in sys.stdin)
    events = (feed_pb2.Event(id=id, topic=topic, body=body) for id, _, body in lines)
    while batch := list(itertools.islice(events, EVENTS_PER_UPLOAD)):
        result = await upload(feed, batch)
        print(f"{result.received} acknowledged, {result.duplicates} of them were there already", flush=True)


async def main(command="", topic="", cursor=""):
    if command not in ("watch", "upload") or not topic:
        sys.exit(__doc__)
    heartbeat = int(os.environ.get("HEARTBEAT_SECONDS") or "10")
    async with grpc.aio.insecure_channel(os.environ.get("FEED_ADDRESS") or "127.0.0.1:50051", OPTIONS) as channel:
        feed = feed_pb2_grpc.FeedServiceStub(channel)
        try:
            if command == "watch":
                await watch(feed, topic, cursor, heartbeat, show)
            else:
                await upload_lines(feed, topic)
        except grpc.aio.AioRpcError as error:
            sys.exit(f"{command} ended: {explain(error)}")


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass

"""Watches over HTTP with httpx-sse, and prints what comes, a JSON object a line.

Usage: sse_reader.py URL COUNT: ends after so many events. After a lost connection, it goes on as a browser does.
"""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

url, count = sys.argv[1], int(sys.argv[2])
last_id, wait, seen = "", 1.0, 0

while seen < count:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    try:
        with httpx.Client(timeout=httpx.Timeout(5, read=60)) as client:
            with connect_sse(client, "GET", url, headers=headers) as source:
                source.response.raise_for_status()
                for event in source.iter_sse():
                    last_id = event.id
                    if event.retry is not None:
                        wait = event.retry / 1000
                    # httpx-sse also reports blocks without data, which browsers do not.
                    if not event.data:
                        continue
                    print(json.dumps({"type": event.event, "id": event.id, "data": event.data}), flush=True)
                    seen += event.event == "message"
                    if seen == count:
                        break
    except httpx.TransportError:
        time.sleep(wait)

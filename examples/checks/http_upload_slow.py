# SPDX-License-Identifier: Apache-2.0
"""http_upload_slow.py PORT COUNT IDLE: COUNT clients that begin a request and do not end it, half of
them silent, half a byte now and then. All must be gone some time after IDLE seconds, most of them
with a 408, while a normal client is served at once."""

import asyncio
import collections
import resource
import sys
import time

port, count, idle = (int(word) for word in sys.argv[1:4])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
ended = collections.Counter()


async def slow(number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Le")
    try:
        while True:
            try:
                answer = await asyncio.wait_for(reader.read(1000), 1)
            except asyncio.TimeoutError:
                if number % 2:
                    writer.write(b"x")
                continue
            ended[answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "no answer"] += 1
            break
    except ConnectionError:
        ended["reset"] += 1
    writer.close()


async def normal(stop, delays):
    while not stop.is_set():
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok\n"), answer
        delays.append(time.monotonic() - began)
        writer.close()
        await asyncio.sleep(0.05)


async def main():
    stop, delays = asyncio.Event(), []
    beside = asyncio.create_task(normal(stop, delays))
    began = time.monotonic()
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(slow(number)))
        if number % 200 == 199:
            await asyncio.sleep(0.02)
    await asyncio.wait_for(asyncio.gather(*tasks), 10 * idle + 60)
    took = time.monotonic() - began
    stop.set()
    await beside
    assert ended["408"] == count, dict(ended)
    print(f"{count} half-open gone with 408 in {took:.1f} s, beside {len(delays)} normal requests")


asyncio.run(main())

"""The one load generator for every server: clients that ask again at once, or arrivals by chance.

It speaks plain HTTP/1.1 over sockets of its own, since it runs on the cores of what it measures; a request costs it
some 0.2 ms. Every picture is sent once: bytes after the end of a JPEG make another one of it that is decoded alike.
"""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

PATIENCE = 60.0  # s for an answer


@dataclass
class Answers:
    """What became of the requests of one run."""

    seconds: list[float] = field(default_factory=list)  # from the first byte sent to the last received, of the 200s
    statuses: Counter[int] = field(default_factory=Counter)  # 0: no answer
    refused_seconds: list[float] = field(default_factory=list)  # of the 503s
    lasted: float = 0.0  # s

    @property
    def per_second(self) -> float:
        """Answers (200) a second."""
        return len(self.seconds) / self.lasted if self.lasted else 0.0

    def quantile(self, share: float) -> float:
        """Of the seconds of what was answered."""
        return float(np.quantile(self.seconds, share)) if self.seconds else float("nan")


class Server:
    """Where to ask, and how: one picture as a raw body, or in a form."""

    def __init__(self, port: int, path: str, form: bool) -> None:
        self.port, self._path, self._form = port, path, form
        self._count = itertools.count(1)

    def request(self, picture: bytes) -> bytes:
        """The bytes of a request about a picture that was never sent before."""
        body = picture + next(self._count).to_bytes(8, "big")
        kind = "image/jpeg"
        if self._form:
            head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
            body = head + b"Content-Type: image/jpeg\r\n\r\n" + body + b"\r\n--edge--\r\n"
            kind = "multipart/form-data; boundary=edge"
        return (
            f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAccept: application/json\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def connect(self) -> "Connection":
        """A connection of one's own."""
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))


class Connection:
    """One that is kept, until the server closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._closed = False

    @property
    def open(self) -> bool:
        """Whether something may be asked: a server hangs up on who has not asked for a while."""
        return not self._closed and not self._reader.at_eof()

    async def ask(self, request: bytes) -> int:
        """Send a request; the status of the answer, 0 where there is none."""
        try:
            async with asyncio.timeout(PATIENCE):
                self._writer.write(request)
                head = await self._reader.readuntil(b"\r\n\r\n")
                lower = head.lower()
                at = lower.find(b"content-length:")
                if at >= 0:
                    await self._reader.readexactly(int(lower[at + 15 : lower.index(b"\r\n", at)]))
                elif b"chunked" in lower:
                    while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                        await self._reader.readexactly(size + 2)
                    await self._reader.readexactly(2)
                if b"connection: close" in lower:
                    self.close()
                return int(head.split(b" ", 2)[1])
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            self.close()
            return 0

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._writer.close()


async def closed_loop(server: Server, pictures: list[bytes], clients: int, seconds: float) -> Answers:
    """So many clients, each of which asks again as soon as it is answered."""
    said = Answers()
    started = time.perf_counter()
    over = started + seconds

    async def client(first: int) -> None:
        connection = await server.connect()
        for number in itertools.count(first):
            if time.perf_counter() >= over:
                break
            if not connection.open:
                connection = await server.connect()
            await _measured(connection, server.request(pictures[number % len(pictures)]), said)
        connection.close()

    await asyncio.gather(*(client(number * 7) for number in range(clients)))
    said.lasted = time.perf_counter() - started
    return said


async def arrivals(server: Server, pictures: list[bytes], rate: float, seconds: float, seed: int) -> Answers:
    """Requests that come by chance (Poisson), `rate` a second, whether others were answered or not."""
    said = Answers()
    idle: list[Connection] = []
    started = time.perf_counter()
    asked: list[asyncio.Task[None]] = []

    async def one(picture: bytes) -> None:
        while idle and not idle[-1].open:
            idle.pop().close()
        connection = idle.pop() if idle else await server.connect()
        await _measured(connection, server.request(picture), said)
        if connection.open:
            idle.append(connection)

    for number, moment in enumerate(moments(rate, seconds, seed)):
        await asyncio.sleep(max(0.0, started + moment - time.perf_counter()))
        asked.append(asyncio.create_task(one(pictures[number % len(pictures)])))
    await asyncio.gather(*asked)
    # Answers of the last moment come after the last arrival; what counts is how many came in the time of the arrivals.
    said.lasted = max(seconds, time.perf_counter() - started)
    for connection in idle:
        connection.close()
    return said


def moments(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests come by chance, in seconds from the first moment on."""
    random = np.random.default_rng(seed)
    found = np.cumsum(random.exponential(1 / rate, int(2 * rate * seconds) + 100))
    return [float(moment) for moment in found[found <= seconds]]


def ideal(each: float, least: float, rate: float, seconds: float, seed: int) -> Answers:
    """What would become of the same arrivals if nothing but the pictures took time: `each` seconds of the machine, one
    after the other, and none answered sooner than `least`.
    """
    said, free = Answers(lasted=seconds), 0.0
    for moment in moments(rate, seconds, seed):
        free = max(free, moment) + each
        said.seconds.append(max(least, free - moment))
    return said


async def _measured(connection: Connection, request: bytes, said: Answers) -> None:
    started = time.perf_counter()
    status = await connection.ask(request)
    took = time.perf_counter() - started
    said.statuses[status] += 1
    if status in (200, 201):
        said.seconds.append(took)
    elif status == 503:
        said.refused_seconds.append(took)

"""Request bodies -> the bytes of pictures, never more of them in memory than the limits say."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from closedloop.errors import BadRequest, ClosedloopError, PictureOfSet, SetSize, UploadTooLarge
from closedloop.sets import MOST, check_size

MAX_BODY = 16 * 2**20  # bytes; our own JPEG of an accepted picture may be larger than what was uploaded
MAX_BODY_OF_SET = MOST * MAX_BODY + 64 * 1024  # the pictures and what multipart puts around them
MAX_HELD = 512 * 2**20  # bytes of all requests at once; beyond it 503
BODY_SECONDS = 30  # for a body to arrive
FIELD = b"file"


class NotMultipart(ClosedloopError):
    """The pictures of a set come as a form (multipart/form-data), each in a field "file"."""

    code = "not_multipart"
    status = 415


class Bodies:
    """Takes bodies in, and knows how many bytes all requests hold at this moment."""

    def __init__(self) -> None:
        self.held = 0  # bytes

    @contextlib.asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[bytes]:
        """The picture that a body is; it counts as held until the block ends.

        Raises UploadTooLarge or BadRequest, and HTTPException (503) where too much is held.
        """
        with self.holding() as hold:
            chunks = [chunk async for chunk in self.chunks(request, MAX_BODY, hold)]
            if not chunks:
                raise BadRequest(reason="the body holds no picture")
            yield b"".join(chunks)

    @contextlib.asynccontextmanager
    async def pictures(self, request: Request) -> AsyncIterator[list[bytes]]:
        """The two to twelve pictures of a form; they count as held until the block ends.

        Raises NotMultipart, SetSize or PictureOfSet besides.
        """
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data":
            raise NotMultipart
        with self.holding() as hold:
            form = _SetForm(options.get(b"boundary", b""))
            async for chunk in self.chunks(request, MAX_BODY_OF_SET, hold):
                form.take(chunk)
            form.check_over()
            check_size(len(form.pictures))
            yield form.pictures

    async def chunks(self, request: Request, limit: int, hold: "Hold") -> AsyncIterator[bytes]:
        """The body as it comes, at most `limit` bytes of it."""
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise UploadTooLarge(limit_mb=limit // 10**6)
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limit:
                        raise UploadTooLarge(limit_mb=limit // 10**6)
                    hold(len(chunk))
                    if chunk:
                        yield chunk
        except TimeoutError:
            raise BadRequest(reason=f"its body was not whole after {BODY_SECONDS} s") from None
        except ClientDisconnect:
            raise BadRequest(reason="the connection ended before its body was whole") from None

    @contextlib.contextmanager
    def holding(self) -> Iterator["Hold"]:
        """A block that holds bytes, and lets go of all of them at its end."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.held -= hold.bytes


class Hold:
    """The bytes of one request, counted with those of all."""

    def __init__(self, of: Bodies) -> None:
        self._of, self.bytes = of, 0

    def __call__(self, count: int) -> None:
        """Hold more; raises HTTPException (503) where that is too much for all requests together."""
        if self._of.held + count > MAX_HELD:
            raise HTTPException(503, headers={"Retry-After": "1"})
        self._of.held += count
        self.bytes += count

    def let_go(self, count: int) -> None:
        """Hold so many no longer."""
        self._of.held -= count
        self.bytes -= count


class Form(ABC):
    """A form as it comes: the parts called "file", and no other."""

    def __init__(self, boundary: bytes) -> None:
        self._chunks: list[bytes] = []  # of the part that is coming
        self._size = 0
        self._header, self._value, self._disposition = b"", b"", b""
        self._options: dict[bytes, bytes] = {}
        self._over = False
        if not boundary:
            raise BadRequest(reason="its Content-Type names no boundary")
        callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._check_name,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError:
            raise BadRequest(reason="its boundary is too long") from None

    def take(self, chunk: bytes) -> None:
        """Read on. Raises BadRequest, and what `begun` and `is_too_large` raise."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(reason=f"it is no valid form ({error})") from None

    def check_over(self) -> None:
        """Raise BadRequest where the form does not end."""
        if not self._over:
            raise BadRequest(reason="the form ends before its last boundary")

    @abstractmethod
    def begun(self) -> None:
        """A picture begins."""

    @abstractmethod
    def is_too_large(self) -> None:
        """The picture that is coming is; what comes of it is not kept."""

    @abstractmethod
    def is_whole(self, name: str, data: bytes | None) -> None:
        """A picture has come, with the name of its file; None: it was too large."""

    def _begin(self) -> None:
        self.begun()
        self._chunks, self._size, self._disposition = [], 0, b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _check_name(self) -> None:
        _, self._options = parse_options_header(self._disposition)
        if self._options.get(b"name") != FIELD:
            raise BadRequest(reason='the form has a part that is not called "file"')

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > MAX_BODY:
            self._chunks.clear()
            self.is_too_large()
        else:
            self._chunks.append(data[start:end])

    def _end(self) -> None:
        name = self._options.get(b"filename", b"").decode("utf-8", "replace")
        self.is_whole(name, None if self._size > MAX_BODY else b"".join(self._chunks))
        self._chunks = []

    def _finish(self) -> None:
        self._over = True


class _SetForm(Form):
    """The pictures of a set: two to twelve, none too large."""

    def __init__(self, boundary: bytes) -> None:
        super().__init__(boundary)
        self.pictures: list[bytes] = []

    def begun(self) -> None:
        """Raises SetSize for the thirteenth."""
        if len(self.pictures) == MOST:
            raise SetSize(have="more")

    def is_too_large(self) -> None:
        """Raises PictureOfSet."""
        raise PictureOfSet.of(len(self.pictures) + 1, UploadTooLarge(limit_mb=MAX_BODY // 10**6))

    def is_whole(self, name: str, data: bytes | None) -> None:
        """Keep it."""
        assert data is not None
        self.pictures.append(data)

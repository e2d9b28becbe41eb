"""Taking in the body of a request, never more of it than a limit: a picture, or the pictures of a set."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from closedloop.errors import BadRequest, SetSize, UploadTooLarge
from closedloop.sets import LEAST, MOST

MAX_PICTURE = 16 * 2**20  # bytes; our own JPEG of an accepted picture may be larger than what was uploaded
SECONDS = 30  # for a whole picture, or a whole set, to arrive
AROUND = 2**16  # bytes of a form beside its files
FIELD = "file"


async def picture(request: Request) -> bytes:
    """The body, which is a picture. Raises UploadTooLarge, BadRequest."""
    body = b"".join([chunk async for chunk in _limited(request, MAX_PICTURE)])
    if not body:
        raise BadRequest(reason="the body holds no picture")
    return body


async def pictures(request: Request) -> list[bytes]:
    """The files of the body's form, in their order. Raises UploadTooLarge, BadRequest, SetSize."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise BadRequest(reason=f'the pictures of a set come as multipart/form-data in the field "{FIELD}"')
    stream = _limited(request, MOST * MAX_PICTURE + AROUND)
    parser = MultiPartParser(request.headers, stream, max_files=MOST + 1, max_fields=MOST, max_part_size=AROUND)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise SetSize(have=f"more than {MOST}") from None
        raise BadRequest(reason=f"it is no form with files: {error.message}") from None
    except (KeyError, ValueError, UnicodeDecodeError):
        raise BadRequest(reason="it is no form with files") from None
    try:
        sent = [file for name, file in form.multi_items() if name == FIELD and isinstance(file, UploadFile)]
        if not LEAST <= len(sent) <= MOST:
            raise SetSize(have=len(sent))
        found = []
        for number, file in enumerate(sent, start=1):
            data = await file.read(MAX_PICTURE + 1)
            if len(data) > MAX_PICTURE:
                raise UploadTooLarge(limit_mb=MAX_PICTURE // 10**6)
            if not data:
                raise BadRequest(reason=f"picture {number} of the set is empty")
            found.append(data)
        return found
    finally:
        await form.close()


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body's chunks, within a limit of bytes and of seconds."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise UploadTooLarge(limit_mb=limit // 10**6)
    size = 0
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise UploadTooLarge(limit_mb=limit // 10**6)
                yield chunk
    except TimeoutError:
        raise BadRequest(reason=f"what was sent was not whole after {SECONDS} s") from None
    except ClientDisconnect:
        raise BadRequest(reason="the connection ended before the picture was whole") from None

"""What comes in the body of a request: how large it may be, and the files in it."""

import re
from typing import Any

from flask import request
from werkzeug.datastructures import FileStorage

from closedloop.errors import ClosedloopError, EmptyUpload
from closedloop.image import MAX_BYTES
from closedloop.sets import MOST

MAX_BODY = MAX_BYTES + 64 * 1024  # the picture and what multipart puts around it
MAX_BODY_OF_SET = MOST * MAX_BYTES + 64 * 1024
_SETS = re.compile(r"/p/[^/]+/sets")


class NotMultipart(ClosedloopError):
    """The picture must come as multipart/form-data, in the field "file"."""

    code = "not_multipart"
    status = 415


def limit(path: str) -> int:
    """How many bytes what is sent to this address may have."""
    return MAX_BODY_OF_SET if _SETS.fullmatch(path) else MAX_BODY


def megabytes(path: str) -> int:
    """The same as people are told."""
    return MAX_BYTES // 10**6 * (limit(path) // MAX_BYTES)


def files() -> list[FileStorage]:
    """The files of the request's field "file"; raises NotMultipart or EmptyUpload. Large ones lie on the disk."""
    if request.mimetype not in ("", "multipart/form-data"):
        raise NotMultipart
    found = [file for file in request.files.getlist("file") if file.filename or _has_content(file)]
    if not found:
        raise EmptyUpload
    return found


def _has_content(file: FileStorage) -> Any:
    begins = file.stream.read(1)
    file.stream.seek(0)
    return begins

"""JSON logs, one object a line, with the request id that travels from part to part (`X-Request-ID`)."""

import logging
import re
import sys
import uuid
from typing import TextIO

import structlog

REQUEST_ID_HEADER = "X-Request-ID"


def configure_logs(part: str, level: str = "INFO", stream: TextIO = sys.stdout) -> None:
    """Send everything that this process logs, libraries included, to a stream as JSON lines marked with `part`."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )

    def name_part(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"part": part, **event}

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                name_part,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "apscheduler", "botocore", "aiobotocore", "uvicorn.access", "alembic"):
        logging.getLogger(noisy).setLevel("WARNING")
    logging.getLogger("apscheduler.scheduler").setLevel("ERROR")  # a job that is still running is no news


def get_logger() -> structlog.stdlib.BoundLogger:
    """The logger of this process."""
    return structlog.get_logger()


def bind_request_id(given: str | None) -> str:
    """Take over the caller's request id, or make one; every log line of this request then carries it."""
    known = given if given and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=known)
    return known


def current_request_id() -> str | None:
    """The request id of the work at hand, None outside a request."""
    return structlog.contextvars.get_contextvars().get("request_id")

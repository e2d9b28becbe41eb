"""`python -m inference_api`: the inference service."""

import os
import resource

import uvicorn

from closedloop.logs import configure_logs
from closedloop.settings import load_settings


def main() -> None:
    """Serve until the process is told to stop; requests under way are finished."""
    # Threads of OpenMP (torch's, where that is the backend) that wait by spinning make a pass ten times as long where
    # others want the processors, too. Read when torch is loaded, so it comes first.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from inference_api.app import create_app
    from inference_api.refusals import Protocol

    # Each connection is a file; many systems give a process a thousand of them, unless it asks for more.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    settings = load_settings()
    configure_logs("inference", settings.closedloop_log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.closedloop_bind,
        port=settings.closedloop_inference_port,
        http=Protocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()

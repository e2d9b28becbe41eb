"""honcho with two things added: a part that dies is started again, and no part outlives the supervisor."""

import ctypes
import json
import logging
import logging.handlers
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from honcho.manager import Manager
from honcho.printer import Message
from honcho.process import Popen, Process

LONGEST_WAIT = 30.0  # s between two starts of a part that keeps dying
STEADY = 60.0  # s after which a part counts as having run well
KILL_AFTER = 5.0  # s between the request to end and the end
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOG_BYTES = 10 * 2**20
Attention = Callable[[str, bool], None]  # a line for the terminal, and whether it is urgent (a part died)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class _Part(Process):
    """A part in the hands of a process of its own, which starts it again until it is told to stop."""

    stopping: Any = None  # multiprocessing.Event, shared with the manager

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        self._events = events
        if ignore_signals:
            # Handlers, not SIG_IGN: the part would inherit that and could not be ended.
            for number in ENDINGS:
                signal.signal(number, lambda *_: None)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
        parent = os.getppid()
        threading.Thread(target=self._watch, args=(parent,), daemon=True).start()
        wait = 1.0
        while not self.stopping.is_set():
            began = time.monotonic()
            self._child = Popen(self.cmd, env=self.env, cwd=self.cwd, preexec_fn=_end_with_parent)
            self._send_message({"pid": self._child.pid}, type="start")
            assert self._child.stdout is not None
            for line in iter(self._child.stdout.readline, b""):
                self._send_message(line)
            self._child.stdout.close()
            self._child.wait()
            if self.stopping.is_set():
                break
            wait = 1.0 if time.monotonic() - began > STEADY else wait
            event = f"ended with status {self._child.returncode}; it is started again in {wait:.0f} s"
            self._send_message(json.dumps({"level": "error", "event": event, "died": True}).encode() + b"\n")
            self.stopping.wait(wait)
            wait = min(LONGEST_WAIT, 2 * wait)
        self._send_message({"returncode": self._child.returncode if self._child else 0}, type="stop")

    def _watch(self, parent: int) -> None:
        """End the part when the supervisor is gone, however it went."""
        while os.getppid() == parent:
            time.sleep(0.5)
        self.stopping.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._child and self._child.poll() is None:
                os.killpg(self._child.pid, number)
                time.sleep(KILL_AFTER if number == signal.SIGTERM else 0)
        os._exit(1)


def _end_with_parent() -> None:
    """Linux ends the part with the process that holds it, should that be killed: then nobody is left to watch."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Supervisor(Manager):
    """Runs the parts until it is told to stop. What they print goes to files; `attention` gets what matters."""

    def __init__(self, logs: Path, attention: Attention) -> None:
        self.stopping = multiprocessing.Event()
        super().__init__(printer=_Files(logs, attention))
        self._process_ctor = _Part

    def add_process(self, name: str, cmd: str, quiet: bool = False, env: Any = None, cwd: Any = None) -> Any:
        """Add a part, to be started by `loop`."""
        part: Any = super().add_process(name, cmd, quiet, env, cwd)
        part.stopping = self.stopping
        return part

    def loop(self) -> None:
        """Run the parts until they are to end: Ctrl-C, SIGTERM, or a terminal that was closed."""
        signal.signal(signal.SIGHUP, lambda *_: self.terminate())
        super().loop()

    def _start(self) -> None:
        # A fork has the handlers of this process until it sets its own, and must not act on them: nothing comes before.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
        try:
            super()._start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)

    def terminate(self) -> None:
        """End all parts, none of which is started again."""
        self.stopping.set()
        if not self._terminating:
            killer = threading.Timer(KILL_AFTER, self.kill)
            killer.daemon = True
            killer.start()
        super().terminate()

    # honcho waits for parts that never said that they started, or that cannot say any more that they stopped.

    def _all_started(self) -> bool:
        return self.stopping.is_set() or super()._all_started()

    def _all_stopped(self) -> bool:
        return all(map(_over, self._processes.values()))

    def _any_stopped(self) -> bool:
        return any(map(_over, self._processes.values()))

    def _killall(self, force: bool = False) -> None:
        for entry in self._processes.values():
            if entry.get("pid") and not _over(entry):
                (self._procmgr.kill if force else self._procmgr.terminate)(entry["pid"])


def _over(entry: Mapping[str, Any]) -> bool:
    """Whether a part has ended, or the process that holds it was killed (the part ends with it)."""
    process = entry.get("process")
    return entry.get("returncode") is not None or (process is not None and process.exitcode is not None)


class _Files:
    """honcho's printer: a file for each part, and to the terminal only what needs attention."""

    def __init__(self, logs: Path, attention: Attention) -> None:
        self.width = 0
        self._logs = logs
        self._attention = attention
        self._files: dict[str, logging.Handler] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def write(self, message: Message) -> None:
        """Take one message of one part."""
        if message.type != "line":
            return
        text = message.data.decode(errors="replace") if isinstance(message.data, bytes) else str(message.data)
        self._file(message.name).emit(logging.makeLogRecord({"msg": text.rstrip("\n")}))
        if said := _needs_attention(text):
            self._attention(f"{message.name}: {said[0]}", said[1])

    def _file(self, name: str) -> logging.Handler:
        if name not in self._files:
            path = self._logs / f"{name}.log"
            self._files[name] = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=2)
        return self._files[name]


def _needs_attention(line: str) -> tuple[str, bool] | None:
    """The gist of one of our own log lines where it is a warning or worse, and whether it is urgent."""
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("level") not in ("warning", "error", "critical"):
        return None
    detail = entry.get("reason") or str(entry.get("exception", "")).strip().rsplit("\n", 1)[-1]
    where = entry.get("project") or entry.get("job") or entry.get("key") or ""
    parts = (str(entry.get("event", "")), f"({where})" if where else "", str(detail))
    return " ".join(part for part in parts if part), bool(entry.get("died"))

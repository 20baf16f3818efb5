"""`ccn serve` in a process of its own, where only what a server needs can be imported."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.processes import clean_environment

HEAVY = ("torch", "lightning", "torchrec", "fbgemm_gpu", "torchmetrics", "pyarrow", "yaml", "jsonargparse", "scipy")
MAIN = f"""
import sys
for name in {HEAVY}: sys.modules[name] = None  # an import of it fails
from lightning_ccn.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


class ServerProcess:
    """A server; what it says goes into a file.

    Args:
        package: The package.
        log: The file.
        options: More options of the command.
        descriptors: Its limit of file descriptors, or the soft and the hard one; None: that of this process.

    Attributes:
        pid: Of the process.
        port: Its port.
        url: Where it is.
    """

    def __init__(
        self, package: Path, log: Path, *options: str, descriptors: int | tuple[int, int] | None = None
    ) -> None:
        self._log = log
        patient = ("--most_seconds", "3600")  # the machine may be slow; what comes later on the line wins
        command = [sys.executable, "-c", MAIN, str(package), "--port", "0", *patient, *options]
        if descriptors is not None:
            both = (descriptors, descriptors) if isinstance(descriptors, int) else descriptors
            command = ["prlimit", f"--nofile={both[0]}:{both[1]}", *command]
        with log.open("w") as file:
            self._process = subprocess.Popen(command, stderr=file, env=clean_environment(OMP_NUM_THREADS="1"))
        self.pid = self._process.pid
        self.port = int(self.wait_for(r"http://\S+?:(\d+)/ serves"))
        self.url = f"http://127.0.0.1:{self.port}/"

    def wait_for(self, pattern: str) -> str:
        """Waits until the log has it; returns its group, or all of it."""
        while True:
            if match := re.search(pattern, self.said()):
                return match.group(match.lastindex or 0)
            assert self._process.poll() is None, self.said()
            time.sleep(0.01)

    def said(self) -> str:
        """The log."""
        return self._log.read_text()

    def listens(self) -> bool:
        """Whether it takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except (ConnectionRefusedError, ConnectionResetError):  # the latter: it ended while this one was in its queue
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Waits for the end; returns the exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


class Client:
    """A connection that is kept, to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(self, path: str, request: object = None) -> tuple[int, Any, bool]:
        """GET, or POST of a value as JSON.

        Returns:
            The status, the value or text of the body, and whether the server closes the connection.
        """
        if request is None:
            self._connection.request("GET", path)
        else:
            self._connection.request("POST", path, json.dumps(request), {"content-type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read().decode()
        is_json = (answer.getheader("content-type") or "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text, answer.getheader("connection") == "close"

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

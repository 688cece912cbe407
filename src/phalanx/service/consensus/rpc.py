"""The engine's own RPC, over its Unix socket: how a node's process hands it submissions."""

import base64
import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

from phalanx.errors import DataError
from phalanx.service.consensus.listener import connect

__all__ = ["EngineRpc"]

_TIMEOUT_S = 10.0
_KNOWN = "already exists in cache"  # it waits, or was ordered lately


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path, _TIMEOUT_S)


class EngineRpc:
    """Calls an engine, from any thread; a connection a call, which costs little on a Unix socket.

    Args:
        path: of the engine's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def submit(self, raw: bytes) -> str | None:
        """Hands over a transaction; why it was refused, or None."""
        try:
            told = self.call("broadcast_tx_sync", {"tx": base64.b64encode(raw).decode()})
        except DataError as problem:
            return (
                None
                if _KNOWN in str(problem)
                else f"the engine refuses it ({problem}); submit it again later"
            )
        except (OSError, http.client.HTTPException) as problem:
            return f"the engine does not take it now ({problem}); submit it again"
        return None if told.get("code") == 0 else str(told.get("log") or "refused")

    def status(self) -> dict[str, Any]:
        """Whether the engine ``takes_part`` (it runs, has caught up, and the chain has begun), and its ``height``."""
        try:
            info = self.call("status", {})["sync_info"]
            height = int(info["latest_block_height"])
            return {"takes_part": height > 0 and not info["catching_up"], "height": height}
        except (OSError, DataError, KeyError, ValueError, TypeError, http.client.HTTPException):
            return {"takes_part": False, "height": 0}

    def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a call.

        Raises:
            DataError: the engine answers with an error.
            OSError, http.client.HTTPException: it is not there, or does not answer in time.
        """
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        with contextlib.closing(_Connection(self._path)) as connection:
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            told = json.loads(connection.getresponse().read())
        if "error" in told:
            problem = told["error"]
            raise DataError(str(problem.get("data") or problem.get("message")))
        return told["result"]

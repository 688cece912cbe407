"""The consensus engine: an optional binary that is looked for, and the settings it runs with."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from phalanx.errors import UsageError

__all__ = ["ENGINE_VERSION", "configuration", "find"]

ENGINE_VERSION = "0.38.26"
"""The version that ``scripts/build-cometbft`` builds."""

_LINE = "0.38."  # ABCI 2.0 with vote extensions; later lines speak another ABCI
_HERE = Path(__file__).resolve().parents[4]


def find() -> Path:
    """The engine's binary: ``$PHALANX_COMETBFT``, else in the project's ``.cache/bin``, ``~/.cache/phalanx/bin``, PATH.

    Raises:
        UsageError: there is none, or it is of another line.
    """
    named = os.environ.get("PHALANX_COMETBFT")
    places = [_HERE / ".cache" / "bin" / "cometbft", Path.home() / ".cache" / "phalanx" / "bin" / "cometbft"]
    on_path = shutil.which("cometbft")
    candidates = [Path(named)] if named else [*places, *([Path(on_path)] if on_path else [])]
    found = next((path for path in candidates if os.access(path, os.X_OK) and path.is_file()), None)
    if found is None:
        looked = f"$PHALANX_COMETBFT is {named}" if named else f"looked in {places[0]}, {places[1]} and PATH"
        raise UsageError(
            f"no consensus engine: {looked}. A network of nodes needs the binary cometbft {ENGINE_VERSION}; with Go, "
            "scripts/build-cometbft builds it; or point PHALANX_COMETBFT at one"
        )
    version = _version(found)
    if not version.startswith(_LINE):
        raise UsageError(
            f"{found} is {version or 'no cometbft'}; phalanx needs {_LINE}x (ABCI 2.0 with vote extensions). "
            "Run scripts/build-cometbft, or point PHALANX_COMETBFT at one"
        )
    return found.resolve()


def _version(path: Path) -> str:
    try:
        done = subprocess.run([path, "version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.match(r"v?(\d+\.\d+\.\d+\S*)\s*$", done.stdout)
    return found.group(1) if done.returncode == 0 and found else ""


def configuration(*, moniker: str, p2p: str, peers: Sequence[str]) -> str:
    """The engine's ``config.toml``: what differs from its defaults.

    Peers are those that are named; others are turned away. Sockets lie in the folder that the engine runs in; its RPC
    is one too, so that nobody but the owner reaches it. Timeouts are those of one machine or one local network; the
    engine lengthens them round by round where they are too short.

    Args:
        moniker: of the node.
        p2p: ``host:port`` on which other engines reach it.
        peers: ``id@host:port`` of the others.
    """
    return f"""\
proxy_app = "unix://abci.sock"
moniker = "{moniker}"
log_level = "error"

[rpc]
laddr = "unix://rpc.sock"
max_body_bytes = 4194304
unsafe = false

[p2p]
laddr = "tcp://{p2p}"
persistent_peers = "{",".join(peers)}"
persistent_peers_max_dial_period = "1s"
unconditional_peer_ids = "{",".join(peer.partition("@")[0] for peer in peers)}"
max_num_inbound_peers = 0
max_num_outbound_peers = 0
addr_book_strict = false
allow_duplicate_ip = true
pex = false
flush_throttle_timeout = "1ms"
max_packet_msg_payload_size = 65536
send_rate = 209715200
recv_rate = 209715200

[mempool]
type = "flood"
recheck = true
size = 1000
cache_size = 10000
max_tx_bytes = 2097152
max_txs_bytes = 67108864

[statesync]
enable = false

[consensus]
timeout_propose = "80ms"
timeout_propose_delta = "80ms"
timeout_prevote = "20ms"
timeout_prevote_delta = "20ms"
timeout_precommit = "20ms"
timeout_precommit_delta = "20ms"
timeout_commit = "10ms"
skip_timeout_commit = true
create_empty_blocks = false
peer_gossip_sleep_duration = "2ms"
peer_query_maj23_sleep_duration = "500ms"

[tx_index]
indexer = "null"

[instrumentation]
prometheus = false
"""

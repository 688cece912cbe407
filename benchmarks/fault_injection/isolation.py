"""Runs this program anew in namespaces of its own: what it makes there ends with it, however it ends.

Processes, network interfaces and mounts of the run are in namespaces that the kernel takes down once the first process
in them has ended: none is left behind by Ctrl-C, SIGTERM or SIGKILL.
"""

import _thread
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

__all__ = ["flags", "run", "run_isolated", "why_not"]

_INSIDE = "PHALANX_FAULTS_INSIDE"
_PATIENCE_S = 60.0


def flags() -> list[str]:
    """What ``unshare`` is told."""
    own = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return own if os.geteuid() == 0 else ["--user", "--map-root-user", *own]


def why_not() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    tried = ["unshare", *flags(), "sh", "-c", "ip link add br0 type bridge && mount -t tmpfs none /run"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=30)
    return None if done.returncode == 0 else f"no namespaces: {(done.stdout + done.stderr).strip()}"


def run(*words: str) -> None:
    """Runs a command.

    Raises:
        RuntimeError: it fails; with what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {(done.stdout + done.stderr).strip()}")


def run_isolated() -> int | None:
    """Runs this program anew in namespaces of its own and returns its exit status; None where it is in them already.

    SIGINT and SIGTERM interrupt what runs inside, which has a minute to end.
    """
    if os.environ.get(_INSIDE):
        _end_with_parent()
        return None
    inside = subprocess.Popen(
        ["unshare", *flags(), sys.executable, *sys.argv],
        stdin=subprocess.PIPE,
        env=os.environ | {_INSIDE: "1"},
        start_new_session=True,
    )
    assert inside.stdin is not None
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    while inside.poll() is None and not ending.wait(0.2):
        pass
    inside.stdin.close()  # which it takes as an interrupt
    try:
        return inside.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        inside.kill()
        return inside.wait()


def _end_with_parent() -> None:
    def watch() -> None:
        while os.read(0, 1024):
            pass
        _thread.interrupt_main()
        time.sleep(_PATIENCE_S)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    threading.Thread(target=watch, daemon=True).start()
    run("mount", "-t", "tmpfs", "none", "/run")
    run("ip", "link", "set", "lo", "up")

"""The command line: finds the verb, runs it, and turns what goes wrong into one line and an exit code.

A verb's module is imported when the verb is called, so that help and usage errors come at once.
"""

import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from phalanx.cli_command import show
from phalanx.errors import PhalanxError, UsageError, unknown_name

__all__ = ["VERBS", "main"]

VERBS = {
    "train": ("phalanx.cli_train", "train a committee of agents"),
    "evaluate": ("phalanx.cli_evaluate", "measure a trained run: detection, response, committee"),
    "compare": ("phalanx.cli_compare", "let runs and baselines answer the same episodes"),
    "doctor": ("phalanx.cli_doctor", "say why a training run fails, from any PPO log, or what a task allows"),
    "simulate": ("phalanx.cli_simulate", "write a table of simulated events with truth"),
    "ingest": ("phalanx.cli_ingest", "turn recorded telemetry into an event table"),
    "report": ("phalanx.cli_report", "write the report of a run as one HTML file"),
    "monitor": ("phalanx.cli_monitor", "check a trace against a formula of Signal Temporal Logic"),
    "serve": ("phalanx.cli_serve", "decide live events over HTTP with the committee of a run"),
    "up": (
        "phalanx.cli_up",
        "decide live events with every member as a node of its own, up to f of them liars",
    ),
    "network": ("phalanx.cli_network", "say how a committee's nodes are, give a member new keys"),
    "ledger": (
        "phalanx.cli_ledger",
        "verify the ledger of decisions, decide its events again, show its entries",
    ),
}
"""Verb -> the module whose ``command(arguments)`` parses its flags, and one line of help."""

_INTERRUPTED, _PIPE_CLOSED, _TERMINATED = 130, 141, 143  # 128 + the number of the signal

_HELP = """\
usage: phalanx VERB [ARGUMENTS]

A committee of reinforcement-learning agents that guards hosts.

verbs:
{verbs}

Every verb takes --json (one JSON object on stdout, logs on stderr), --seed and --help.
Exit codes: 0 ok, 1 a finding (doctor, monitor, ledger), 2 usage, 3 bad data.

example:
  phalanx train --iterations 50 --out runs/first
  phalanx evaluate runs/first --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: what follows ``phalanx`` on the command line; that of this process unless given.

    Returns:
        0 ok; 1 a finding; 2 usage; 3 bad data; 130 interrupted (Ctrl-C); 141 stdout closed. Unexpected errors keep
        their traceback.

    Raises:
        SystemExit: with code 143, after a termination signal.

    Example:
        >>> main(["--version"])
        phalanx 0.1.0
        0
    """
    with _terminable():
        try:
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()  # here, not when the interpreter ends: a reader that has gone is met below
            return code
        except PhalanxError as error:
            print(f"phalanx: error: {' '.join(str(error).split())}", file=sys.stderr)
            for note in getattr(error, "__notes__", ()):
                print(note, file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print("phalanx: interrupted", file=sys.stderr)
            if (
                arguments is None
            ):  # the process's own command line: threads that still compile crash an orderly end
                sys.stdout.flush()
                os._exit(_INTERRUPTED)
            return _INTERRUPTED
        except BrokenPipeError:  # the reader of stdout, say `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _PIPE_CLOSED


def _run(arguments: list[str]) -> int:
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        verbs = "\n".join(f"  {name:<10}{line}" for name, (_, line) in VERBS.items())
        print(_HELP.format(verbs=verbs), end="")
        return 0 if arguments else UsageError.exit_code
    if verb == "--version":
        from importlib.metadata import version

        print(f"phalanx {version('phalanx')}")
        return 0
    if verb not in VERBS:
        raise unknown_name("verb", verb, VERBS)
    try:
        command = importlib.import_module(VERBS[verb][0]).command(rest)
    except SystemExit as stop:  # help was asked for and shown
        return int(stop.code or 0)
    logging.basicConfig(stream=sys.stderr, format="phalanx: %(message)s", force=True)
    logging.getLogger("phalanx").setLevel(logging.INFO)
    with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the result alone
        result = command.run()
    show(result, as_json=command.json, render=getattr(command, "render", None))
    return command.code(result) if hasattr(command, "code") else 0


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes a termination signal unwind the stack, so that temporary files are deleted as after Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

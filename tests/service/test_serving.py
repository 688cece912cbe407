"""A service put together: what is refused before anything begins, what a restart keeps, what drift leads to."""

import json
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from service.ledgers import verified
from service.models import ENCODER, events, model

from phalanx.errors import DataError, RunError, UsageError
from phalanx.service import serving
from phalanx.service.desk import DeskConfig
from phalanx.service.drift import WatchConfig
from phalanx.service.ledger import read_entries
from phalanx.service.ledger_bodies import event_to_json
from phalanx.service.model import Model
from phalanx.service.policy import SafetyPolicy
from phalanx.service.serve_config import ServeConfig
from phalanx.service.serving import Service, serve
from phalanx.service.worker import QueueConfig

PATIENCE_S = 120.0


def config(folder: Path, **changes: Any) -> ServeConfig:
    return replace(ServeConfig(folder, port=0, slots=64, batch=16, queue=QueueConfig(tick_s=0.05)), **changes)


def no_model() -> Model:
    raise AssertionError("the model is loaded before what can be refused at once is refused")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "say --insecure"),
        ({"host": "no such name.invalid"}, "no such address"),
        ({"port": 1, "host": "192.0.2.7", "insecure": True}, "cannot be taken"),
    ],
)
def test_what_can_be_refused_at_once_is(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Service.open(config(tmp_path / "live", **changes), no_model)
    assert not (tmp_path / "live").exists()


def sent(n: int, prefix: str) -> list[dict[str, Any]]:
    found = []
    for event in events()[:n]:
        form = event_to_json(event)
        found.append({**form.pop("attributes"), **form, "id": f"{prefix}-{form['id']}"})
    return found


class Running:
    """A service in a thread, and a client with every scope."""

    def __init__(self, given: ServeConfig, made: Model) -> None:
        self.service = Service.open(given, lambda: made)
        self.error: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        tokens = {path.name: path.read_text().strip() for path in (given.folder / "tokens").iterdir()}
        self.client = httpx.Client(base_url=self.service.url, timeout=PATIENCE_S)
        self.headers = {scope: {"authorization": f"Bearer {token}"} for scope, token in tokens.items()}
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                assert self.client.get("/healthz").status_code == 200
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("it does not answer")

    def _run(self) -> None:
        try:
            self.service.run()
        except BaseException as error:
            self.error.append(error)

    def post(self, path: str, body: Any, scope: str) -> Any:
        return self.client.post(path, json=body, headers=self.headers[scope]).json()

    def get(self, path: str) -> Any:
        return self.client.get(path, headers=self.headers["read"]).json()

    def end(self) -> None:
        self.client.close()
        self.service.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive() and not self.error
        self.service.close()


def test_a_service_over_its_life(tmp_path: Path) -> None:
    """One model, compiled once, through starts, refusals, drift and a change of the model."""
    folder, made = tmp_path / "live", model(threshold=0.3)
    watch = WatchConfig(
        reference=32, window=32, persist=1, score=0.4, brier=0, calibration=0, fewest_labels=5
    )
    enforcing = config(folder, policy=SafetyPolicy(enforce=True), watch=watch)
    live = Running(enforcing, made)
    assert live.service.facts()["mode"] == "enforce" and folder.stat().st_mode & 0o077 == 0
    assert json.loads((folder / "serving.json").read_text())["url"] == live.service.url
    with pytest.raises(UsageError, match="another process has this ledger open"):
        Service.open(enforcing, lambda: made)

    # decisions are those of the engine, and can be looked up and labelled
    results = live.post("/v1/events", sent(40, "a"), "ingest")["results"]
    assert [result["id"] for result in results] == [each["id"] for each in sent(40, "a")]
    assert live.get(f"/v1/decisions/{results[0]['id']}")["verdict"] == results[0]["verdict"]
    labels = [{"id": result["id"], "malicious": True} for result in results[:6]] + [
        {"id": "x", "malicious": False}
    ]
    assert live.post("/v1/labels", labels, "approve") == {"taken": 6, "unknown": 1}
    brier = float(np.mean([(result["score"] - 1) ** 2 for result in results[:6]]))
    metrics = live.client.get("/metrics", headers=live.headers["read"]).text
    told = next(line for line in metrics.splitlines() if line.startswith('phalanx_watch{measure="brier"}'))
    assert float(told.split()[1]) == pytest.approx(brier)

    # planted drift: the same scores no more
    watching = live.service.watching
    watching.watch._sorted = None
    watching.watch._reference.scores = [np.full(32, 0.999)]
    live.post("/v1/events", sent(80, "b"), "ingest")
    health, deadline = live.client.get("/healthz").json(), time.monotonic() + PATIENCE_S
    while health["mode"] != "shadow" and time.monotonic() < deadline:  # by the next tick
        time.sleep(0.05)
        health = live.client.get("/healthz").json()
    assert health["mode"] == "shadow" and "fallback" in health["notes"] and "drift-score" in health["notes"]
    assert "distribution" in str(live.service.desk.safety.state.fallback)
    pages = [
        e.body for e in read_entries(folder / "ledger") if e.kind == "operator" and e.body["act"] == "page"
    ]
    assert [body["reason"] for body in pages] == ["drift"]
    live.end()
    assert not (folder / "serving.json").exists() and (folder / "state").exists()

    # a restart is still in shadow mode, until an operator ends it; what comes then is what is usual
    live = Running(enforcing, made)
    assert not live.service.notice
    assert live.client.get("/healthz").json() == {**health, "notes": ["fallback", "drift-score"]}
    assert live.post("/v1/mode", {"mode": "enforce", "why": "seen"}, "kill")["mode"] == "enforce"
    assert live.client.get("/healthz").json()["notes"] == []
    again = live.post("/v1/events", sent(40, "a"), "ingest")["results"]
    assert all(result["repeated"] for result in again)
    same = ("id", "verdict", "score", "height")
    assert [[r[name] for name in same] for r in again] == [[r[name] for name in same] for r in results]
    live.end()
    assert not verified(folder / "ledger").findings
    kinds = [entry.kind for entry in read_entries(folder / "ledger")]
    assert kinds.count("model") == kinds.count("mode") == 2

    # settings that decisions depend on stay
    with pytest.raises(UsageError, match="begun with 64"):
        Service.open(replace(enforcing, slots=128), lambda: made)
    (folder / "settings.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        Service.open(enforcing, lambda: made)
    (folder / "settings.json").write_text('{"slots": 64}')
    (folder / "tokens.txt").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        Service.open(enforcing, lambda: made)
    (folder / "tokens.txt").chmod(0o600)
    (folder / "tokens.txt").write_text("# none any more\n")
    service = Service.open(replace(enforcing, slots=None), lambda: made)
    assert service.notice == str(folder / "tokens") and service.desk.engine.config.slots == 64
    service.close()


def test_what_the_desk_has_let_go_of_is_decided_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "DeskConfig", partial(DeskConfig, remembered=8))
    folder, made = tmp_path / "live", model()
    same = ("id", "verdict", "score", "quorum", "height")

    def told(live: Running, prefix: str) -> tuple[list[Any], set[bool]]:
        results = live.post("/v1/events", sent(40, prefix), "ingest")["results"]
        return [[result[name] for name in same] for result in results], {r["repeated"] for r in results}

    live = Running(config(folder), made)
    first, repeated = told(live, "a")
    assert repeated == {False} and told(live, "b")[1] == {False}
    assert live.get(f"/v1/decisions/{first[-1][0]}")  # the store has them all
    height = live.service.desk.ledger.head.height
    assert first[0][0] not in live.service.desk.known and told(live, "a") == (first, {True})
    assert live.service.desk.ledger.head.height == height
    # what is repeated beside events that push it out of memory
    mixed = live.post("/v1/events", [*sent(40, "b")[-8:], *sent(30, "c")], "ingest")["results"]
    assert [result["repeated"] for result in mixed] == [True] * 8 + [False] * 30
    other = {**sent(1, "a")[0], "subject": "another process"}
    assert live.post("/v1/events", other, "ingest")["results"][0]["error"]["code"] == "id-taken"
    metrics = live.client.get("/metrics", headers=live.headers["read"]).text
    assert 'phalanx_events_total{outcome="repeated"} 49.0' in metrics.splitlines()
    live.end()
    live = Running(config(folder), made)  # and over a restart
    assert first[0][0] not in live.service.desk.known
    assert told(live, "a") == (first, {True})
    live.end()


def test_a_service_without_its_tokens_file_goes_on_and_one_whose_watch_fails_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = Running(config(tmp_path / "live"), model())
    live.service.watching.look = lambda: 1 // 0  # type: ignore[assignment,method-assign,return-value]
    live.service.watching.ticked = lambda: None  # type: ignore[method-assign]
    (tmp_path / "live" / "tokens.txt").unlink()  # which takes no token back, and is said
    deadline = time.monotonic() + PATIENCE_S
    while live.client.get("/healthz").json()["notes"] != ["tokens-not-read"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert live.get("/v1/ledger/head")["height"] == 2
    live.service.worker.stop()
    live.thread.join(PATIENCE_S)
    assert not live.thread.is_alive() and not live.error and "ZeroDivisionError" in caplog.text
    live.client.close()
    live.service.close()


def test_too_little_memory_leaves_no_settings_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="places"):
        Service.open(config(tmp_path / "live", slots=16), model)
    assert not (tmp_path / "live" / "settings.json").exists()
    assert ENCODER.scaling == "log"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        serve(config(tmp_path / "file" / "live"), model)

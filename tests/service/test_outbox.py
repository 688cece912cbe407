"""What waits is delivered at least once, in order, signed, to listed destinations alone; whatever fails meanwhile."""

import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from service.hands import Hands
from service.receivers import Receiver, receiving

from phalanx.errors import DataError, ExtraMissingError
from phalanx.service.actors import Actor
from phalanx.service.clock import SECOND_NS, Moment
from phalanx.service.commands import Command, commands_of
from phalanx.service.delivery import Delivery, DeliveryConfig, message_of
from phalanx.service.outbox import Outbox
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.restrictions import Restriction, State, Target
from phalanx.service.store import Store
from phalanx.service.webhooks import Destination, verify_signature
from phalanx.types import Verdict

SECRET = b"0123456789abcdef" * 2
FAST = DeliveryConfig(attempts=4, first_s=1.0, longest_s=60.0, idle_s=1_000.0)
HANDS_NOW = Hands().wall


def alert(number: int, subject: str = "p", hands: Hands | None = None) -> Command:
    body = {
        "act": "alert",
        "n": number,
        "at": [(hands or Hands()).wall, number],
        "height": number,
        "event": f"e{number}",
        "host": "h",
        "subject": subject,
        "reasons": [],
        "send": True,
    }
    return commands_of(body)[0]


def block(number: int, path: str = "/x", *, lifted: bool = False, subject: str = "p") -> Command:
    now = Moment(HANDS_NOW, number)
    restriction = Restriction(
        f"r-{number}",
        Target("h", subject, path),
        Verdict.BLOCK,
        f"e{number}",
        number,
        900 * SECOND_NS,
        now,
        actor=Actor("h", subject, pid=7),
    ).apply(now)
    act = "restrict"
    if lifted:
        act, restriction = "lift", restriction.end(State.LIFTED, now, by="ann")
    return commands_of({"act": act, "n": number, "at": now.as_json(), "restriction": restriction.as_json()})[
        0
    ]


class Post:
    """A store, its outbox and what delivers it; time passes when told."""

    def __init__(self, where: str, destinations: Sequence[Destination], **given: Any) -> None:
        self.hands = Hands()
        self.store = Store.open(where)
        self.given_up: list[tuple[str, str]] = []
        self.outbox = Outbox(self.store, destinations, self.hands)
        self.delivery = Delivery(
            self.store,
            self.outbox,
            self.hands,
            given.pop("config", FAST),
            gave_up=lambda name, why: self.given_up.append((name, why)),
            **given,
        )
        self.indexed = 0

    def index(self, height: int) -> None:
        """Decisions up to a height are in the store."""
        for each in range(self.indexed + 1, height + 1):
            event = LiveEvent(f"e{each}", 5, "h", "p", "WRITE", attributes={"path": "/x"})
            votes = (Verdict.ALERT,) * 4
            decision = LiveDecision(
                event.id, 5, "h", "p", votes[0], votes, True, 0.5, False, {}, (event.id,), "m"
            )
            self.store.insert(each, [event], [decision])
        self.indexed = max(self.indexed, height)

    def put(self, *commands: Command) -> None:
        self.index(max(command.height for command in commands))
        self.outbox.put(commands)

    def drain(self) -> float:
        """Steps until nothing more is due; for how long, in s."""
        while (wait_s := self.delivery.step()) == 0.0:
            pass
        return wait_s

    def close(self) -> None:
        self.delivery.close()
        self.store.close()


def to(
    receiver: Receiver, *sends: str, name: str = "soc", timeout_s: float = 5.0, **more: Any
) -> Destination:
    return Destination(name, f"{receiver.url}/hook", sends or ("ocsf",), SECRET, timeout_s, **more)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


Posts = Callable[..., Post]


@pytest.fixture
def posts() -> Iterator[Posts]:
    made: list[Post] = []

    def one(*given: Any, **more: Any) -> Post:
        made.append(Post(*given, **more))
        return made[-1]

    yield one
    for each in made:
        each.close()


def states(post: Post) -> dict[str, int]:
    return post.outbox.counts()["soc"]


def test_a_message_arrives_signed_once_and_is_not_sent_again(
    posts: Posts, database: str, receiver: Receiver
) -> None:
    post = posts(database, [to(receiver, "ocsf", "openc2", "page")])
    post.put(alert(1), block(2))
    post.drain()
    block_key = block(2).key
    assert sorted(receiver.ids) == sorted(
        [f"{alert(1).key}-ocsf", f"{block_key}-ocsf", f"{block_key}-openc2"]
    )
    for path, headers, body in receiver.requests:
        assert path == "/hook"
        assert verify_signature(SECRET, headers, body, post.hands.wall / 1e9) == headers["phalanx-id"]
    types = {headers["phalanx-id"][-6:]: headers["content-type"] for _, headers, _ in receiver.requests}
    assert types["openc2"] == "application/openc2-cmd+json;version=1.0"
    (found,) = [json.loads(body) for _, headers, body in receiver.requests if headers["phalanx-id"][0] == "f"]
    assert found["class_uid"] == 2004 and found["unmapped"]["phalanx"]["votes"] == ["alert"] * 4
    post.put(alert(1), block(2))  # after a restart everything is put again
    post.drain()
    assert len(receiver.requests) == 3 and states(post) == {"sent": 3}


def test_what_fails_is_tried_again_later_with_the_same_id_and_body(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers += [500, 503, "close"]
    post.put(alert(1))
    waits = []
    for _ in range(4):
        waits.append(post.delivery.step())
        post.hands.pass_s(waits[-1] * 0.9)
        count = len(receiver.requests)
        post.drain()
        assert len(receiver.requests) == count  # not before it is due
        post.hands.pass_s(waits[-1] * 0.2)
    assert len(receiver.requests) == 4 and states(post) == {"sent": 1}
    assert len(set(receiver.ids)) == 1 and len({body for _, _, body in receiver.requests}) == 1
    stamps = [int(headers["phalanx-timestamp"]) for _, headers, _ in receiver.requests]
    assert stamps == sorted(stamps) and stamps[0] < stamps[-1]  # signed anew each time
    for wait, longest in zip(waits, (1.0, 2.0, 4.0), strict=False):
        assert longest / 2 <= wait <= longest


def test_waits_have_chance_in_them_and_the_same_one_for_the_same_seed(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    def wait(name: str, seed: int) -> float:
        post = posts(str(tmp_path / name), [to(receiver)], seed=seed)
        receiver.answers.append(500)
        post.put(alert(1))
        return post.delivery.step()

    assert wait("a", 1) == wait("b", 1) != wait("c", 2)


def test_too_many_failures_end_it_and_an_operator_is_called(
    posts: Posts, tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers += [500] * 4
    post.put(alert(1), alert(2))
    with caplog.at_level(logging.ERROR, logger="phalanx"):
        for _ in range(8):
            post.drain()
            post.hands.pass_s(60)
    assert post.given_up == [("soc", "4 attempts: HTTP 500")] and "gave up message" in caplog.text
    assert states(post) == {"given-up": 1, "sent": 1}


def test_nobody_listens(posts: Posts, tmp_path: Path) -> None:
    with receiving() as gone:
        destination = to(gone)
    post = posts(str(tmp_path / "s"), [destination])
    post.put(alert(1))
    assert 0.5 <= post.delivery.step() <= 1.0
    (message,) = post.outbox.heads("soc")
    assert message.attempts == 1
    with post.store.reading() as connection:
        (problem,) = connection.exec_driver_sql("SELECT problem FROM outbox").one()
    assert problem == "ConnectError"


def test_a_receiver_that_hangs_is_left_and_asked_again(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver, timeout_s=0.3)])
    receiver.answers.append("hang")
    post.put(alert(1))
    assert post.delivery.step() >= 0.5
    receiver.released.set()
    post.hands.pass_s(60)
    post.drain()
    assert states(post) == {"sent": 1} and len(set(receiver.ids)) == 1 and len(receiver.ids) == 2


def test_redirects_are_not_followed(posts: Posts, tmp_path: Path, receiver: Receiver) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers.append("redirect")
    post.put(alert(1))
    post.drain()
    assert [path for path, _, _ in receiver.requests] == ["/hook"] and states(post) == {"waiting": 1}
    with post.store.reading() as connection:
        (problem,) = connection.exec_driver_sql("SELECT problem FROM outbox").one()
    assert problem == "HTTP 307: redirects are not followed; correct the URL"


def test_an_endless_answer_is_cut_off(posts: Posts, tmp_path: Path, receiver: Receiver) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers.append("endless")
    post.put(alert(1), alert(2))
    post.drain()
    post.drain()
    assert states(post) == {"sent": 2}


def test_a_receiver_that_asks_for_patience_gets_it_up_to_a_bound(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers.append("retry-after")
    post.put(alert(1))
    assert post.delivery.step() == 60.0


def test_the_environments_proxy_is_not_asked(
    posts: Posts, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    post = posts(str(tmp_path / "s"), [to(receiver)])
    post.put(alert(1))
    post.drain()
    assert states(post) == {"sent": 1}


def test_messages_about_one_process_arrive_in_order_and_others_pass_them(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers += [400]  # this message's own fault
    post.put(alert(1, "p"), alert(2, "p"), alert(3, "q"))
    post.drain()
    assert receiver.ids == [f"{alert(1, 'p').key}-ocsf", f"{alert(3, 'q').key}-ocsf"]
    post.hands.pass_s(2)
    post.drain()
    assert receiver.ids[2:] == [f"{alert(1, 'p').key}-ocsf", f"{alert(2, 'p').key}-ocsf"]


def test_a_destination_that_is_down_is_not_asked_for_every_message(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers += [503]
    post.put(*[alert(i, f"p{i}") for i in range(1, 6)])
    post.drain()
    assert len(receiver.requests) == 1
    post.hands.pass_s(1)
    post.drain()
    assert states(post) == {"sent": 5}


def test_one_destination_down_holds_up_no_other(posts: Posts, tmp_path: Path, receiver: Receiver) -> None:
    with receiving() as gone:
        away = to(gone, name="away")
    post = posts(str(tmp_path / "s"), [away, to(receiver)])
    post.put(alert(1))
    post.drain()
    assert states(post) == {"sent": 1} and post.outbox.counts()["away"] == {"waiting": 1}


def test_what_was_undone_never_arrives_after_its_undoing(
    posts: Posts, database: str, receiver: Receiver
) -> None:
    post = posts(database, [to(receiver, "openc2")])
    receiver.answers += [500]
    post.put(block(1))
    post.drain()  # it failed: nobody knows whether it took effect
    post.put(block(1, lifted=True))
    post.hands.pass_s(60)
    post.drain()
    post.put(block(1))
    post.hands.pass_s(60)
    post.drain()
    assert [json.loads(body)["action"] for _, _, body in receiver.requests] == ["deny", "allow"]
    assert states(post) == {"void": 1, "sent": 1}


def test_only_what_is_about_the_same_target_becomes_void(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver, "openc2")])
    post.put(block(1, "/x"), block(2, "/y"), block(1, "/x", lifted=True), block(3, "/x"))
    assert states(post) == {"waiting": 2, "void": 2}


def test_a_message_on_its_way_that_becomes_void_stays_void(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver, "openc2")])
    post.put(block(1))
    (message,) = post.outbox.heads("soc")
    post.put(block(1, lifted=True))
    post.outbox.end(message, "sent")
    post.outbox.retry(message, 0, "late")
    assert states(post) == {"void": 1, "waiting": 1}


def test_a_restriction_does_not_begin_after_its_end(posts: Posts, tmp_path: Path, receiver: Receiver) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver, "openc2")])
    post.put(block(1))
    post.hands.pass_s(900)
    post.drain()
    assert receiver.requests == [] and states(post) == {"expired": 1}


def test_what_only_informs_is_not_sent_a_day_later(posts: Posts, tmp_path: Path, receiver: Receiver) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    post.put(alert(1))
    post.hands.pass_s(86_400)
    post.drain()
    assert receiver.requests == [] and states(post) == {"expired": 1}


def test_a_clock_set_back_does_not_make_messages_wait(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    receiver.answers.append(500)
    post.put(alert(1))
    post.drain()
    post.hands.wall -= 10**15
    post.drain()
    assert states(post) == {"sent": 1}


def test_a_message_waits_a_little_for_its_decision_to_be_indexed(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    post.outbox.put([alert(3)])
    assert post.delivery.step() == 0.1 and receiver.requests == []
    post.hands.pass_s(10)
    post.drain()  # without it, rather than never
    assert "votes" not in json.loads(receiver.requests[0][2])["unmapped"]["phalanx"]


def test_an_id_that_came_again_is_not_taken_for_the_decision(posts: Posts, tmp_path: Path) -> None:
    post = posts(str(tmp_path / "s"), [])
    post.index(3)
    command = alert(3)
    assert b'"votes"' in message_of("ocsf", command, post.store)
    other = Command.of(command.as_json() | {"height": 2})
    assert b'"votes"' not in message_of("ocsf", other, post.store)


def test_pages_say_who_is_called_for_what(posts: Posts, tmp_path: Path, receiver: Receiver) -> None:
    body = {
        "act": "page",
        "n": 1,
        "at": [HANDS_NOW, 1],
        "reason": "host-rate",
        "host": "h\x1b[2J",
        "why": "\n",
    }
    post = posts(str(tmp_path / "s"), [to(receiver, "page")])
    post.outbox.put(commands_of(body))
    waiting = Restriction(
        "r-1", Target("h", "p"), Verdict.QUARANTINE, "e", 1, 600, Moment(HANDS_NOW, 1), wait_ns=60 * SECOND_NS
    )
    asked = {"act": "restrict", "n": 2, "at": [HANDS_NOW, 1], "restriction": waiting.as_json()}
    post.index(1)
    post.outbox.put(commands_of(asked))
    post.drain()
    told = [json.loads(body) for _, _, body in receiver.requests]
    assert told[0]["reason"] == "host-rate" and told[0]["host"] == "h\\x1b[2J" and told[0]["why"] == "\\n"
    assert told[1]["reason"] == "approval" and told[1]["restriction"] == "r-1"
    assert told[1]["answer_before_ms"] == HANDS_NOW // 10**6 + 60_000


def test_bodies_are_json_that_every_reader_takes() -> None:
    odd = Command.of(alert(1).as_json() | {"subject": "a\ud800b", "host": "\u202e"})
    told = json.loads(message_of("ocsf", odd).decode())
    assert told["evidences"][0]["process"]["uid"] == "a\\ud800b" and told["device"]["hostname"] == "\u202e"


def test_commands_have_a_json_form() -> None:
    for command in (alert(1), block(2), block(2, lifted=True)):
        assert Command.of(json.loads(json.dumps(command.as_json()))) == command
    with pytest.raises(DataError, match="not a command"):
        Command.of({"key": "x"})
    with pytest.raises(DataError, match="not a command"):
        Command.of(alert(1).as_json() | {"extra": 1})


def test_heights_and_restrictions_go_with_what_is_put(posts: Posts, database: str) -> None:
    post = posts(database, [])
    assert post.outbox.sent_height == 0
    post.outbox.put([block(3)], height=17)
    assert post.outbox.sent_height == 17
    assert [each.id for each in post.store.restrictions(state="active")] == ["r-3"]
    post.outbox.put([block(3, lifted=True)], height=12)
    assert post.outbox.sent_height == 17 and post.store.restrictions()[0].state is State.LIFTED

    def with_decisions(connection: Any) -> None:
        post.outbox.put_along(connection, [block(4)])
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        post.store.insert(9, [], [], along=with_decisions)
    assert post.store.last_height() == 0 and len(post.store.restrictions()) == 1


def test_what_waits_for_a_destination_that_is_listed_no_more_is_given_up(
    posts: Posts, database: str, receiver: Receiver
) -> None:
    post = posts(database, [to(receiver), to(receiver, name="old")])
    post.put(alert(1))
    again = Outbox(post.store, [to(receiver)], post.hands)
    assert again.give_up_unlisted() == 1
    assert again.counts() == {"soc": {"waiting": 1}, "old": {"given-up": 1}}


def test_what_was_sent_is_forgotten_and_what_waits_is_not(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)])
    post.put(alert(1))
    post.drain()
    post.put(alert(2))
    post.store.forget(1, post.hands.wall + 2 * 86_400 * SECOND_NS)
    assert states(post) == {"waiting": 1}


def test_https_is_checked(posts: Posts, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for name, ca in (("good", authority), ("bad", other)):
        ca.cert_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    with receiving(context) as receiver:
        for name, state in (("good", "sent"), ("bad", "waiting")):
            destination = to(receiver, ca_file=str(tmp_path / f"{name}.pem"))
            post = posts(str(tmp_path / name), [destination])
            post.put(alert(1))
            post.drain()
            assert states(post) == {state: 1}
    assert len(receiver.requests) == 1


def test_a_thread_sends_what_comes_and_stops_when_told(
    posts: Posts, tmp_path: Path, receiver: Receiver
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)], config=DeliveryConfig(idle_s=30))
    post.outbox = Outbox(post.store, [to(receiver)], post.hands, woken=post.delivery.wake)
    post.delivery.start()
    post.put(alert(1))
    assert receiver.arrived.wait(30)  # long before it would look by itself
    post.delivery.stop()
    assert states(post) == {"sent": 1}
    post.put(alert(2))
    assert states(post) == {"sent": 1, "waiting": 1}


def test_a_database_that_is_away_for_a_while_stops_nothing(
    posts: Posts, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = posts(str(tmp_path / "s"), [to(receiver)], config=DeliveryConfig(idle_s=0.05))
    post.put(alert(1))
    heads, failures = post.outbox.heads, [DataError("cannot read the store")] * 2

    def failing(name: str) -> list:
        if failures:
            raise failures.pop()
        return heads(name)

    monkeypatch.setattr(post.outbox, "heads", failing)
    post.delivery.start()
    assert receiver.arrived.wait(30) and not failures
    post.delivery.stop()


def test_killed_in_the_middle_it_sends_the_same_message_again(tmp_path: Path, receiver: Receiver) -> None:
    code = textwrap.dedent("""
        import sys
        sys.path.insert(0, "tests")
        from service.receivers import Receiver
        from service.test_outbox import Post, alert, to
        post = Post(sys.argv[1], [to(Receiver(url=sys.argv[2]))])
        post.put(alert(1))
        post.drain()
        print(post.outbox.counts(), flush=True)
    """)
    command = [sys.executable, "-c", code, str(tmp_path / "s"), receiver.url]
    receiver.answers.append("hang")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert receiver.arrived.wait(120)  # it arrived, and was not answered
        os.kill(first.pid, signal.SIGKILL)
    receiver.released.set()
    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "'sent': 1" in second.stdout
    assert receiver.ids == [f"{alert(1).key}-ocsf"] * 2
    assert receiver.requests[0][2] == receiver.requests[1][2]


def test_without_httpx_its_extra_is_named(
    posts: Posts, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ExtraMissingError, match=r"phalanx\[serve\]"):
        posts(str(tmp_path / "s"), [to(receiver)]).delivery.start()

"""Nodes on hosts of their own: who may come to a door over TCP, and a network of four that is joined node by node."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from consensus.doors import Street
from consensus.fake_engine import events

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.client import Client
from phalanx.service.consensus.enforcer import Enforcer
from phalanx.service.consensus.follower import ask, ledger_height
from phalanx.service.consensus.hosts import Host, Hosts, parse_host, parse_hosts
from phalanx.service.consensus.join import join
from phalanx.service.consensus.listener import Listener, connect
from phalanx.service.consensus.network import Network, create_network
from phalanx.service.consensus.node import NodeFile
from phalanx.service.consensus.tls import TlsAddress, accepting, calling, make_certificate
from phalanx.service.ledger_entry import Entry
from phalanx.service.ledger_files import read_entries
from phalanx.service.ledger_verify import verify_ledger

DEADLINE_S = 180.0  # for machines with much else to do


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port(host: str) -> int:
    """A port that is free now, and the next one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family) as one, socket.socket(family) as other:
            one.bind((host, 0))
            port = int(one.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                other.bind((host, port + 1))
                return port


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.5", ("10.0.0.5", 26656)),
        ("10.0.0.5:4000", ("10.0.0.5", 4000)),
        ("[fd00::5]", ("fd00::5", 26656)),
        ("[::1]:65534", ("::1", 65534)),
        ("db-1.example", ("db-1.example", 26656)),
        ("node:1", ("node", 1)),
    ],
)
def test_hosts_are_addresses_or_names_with_or_without_a_port(text: str, place: tuple[str, int]) -> None:
    assert parse_host(text) == place
    host = Host(*place, "id", "certificate")
    assert parse_host(host.p2p) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":26656",
        "10.0.0.5:",
        "10.0.0.5:0",
        "10.0.0.5:65535",  # the door's port would be none
        "10.0.0.500",
        "10.0.5",
        "fd00::5",  # which of the colons is the port's?
        "[fd00::5",
        "[10.0.0.5]",
        "[fe80::1%eth0]:1",
        "a b",
        "-a.example",
        'x"\npex = true',  # it goes into the engine's settings
        "10.0.0.5:26656:1",
    ],
)
def test_what_is_no_host_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match="expected an IPv4 address"):
        parse_host(text)


def test_wrong_lists_of_hosts_make_no_network(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 hosts for 4 members"):
        create_network(tmp_path / "n", 4, hosts=["a", "b", "c"])
    with pytest.raises(UsageError, match="both use port 26656 of A"):
        create_network(tmp_path / "n", 2, hosts=["a", "A.:26656"])
    with pytest.raises(UsageError, match="both use port 4001 of a"):  # one's door, the other's engine
        parse_hosts(["a:4000", "a:4001"], 2)
    assert parse_hosts(["a:4000", "a:4002", "b:4000"], 3)[1] == ("a", 4002)
    assert not (tmp_path / "n").exists()
    with pytest.raises(DataError, match="not the hosts of a network"):
        Hosts.from_json({"nodes": {"a": {"address": "a b", "port": 1, "engine": "", "certificate": ""}}})


class Keys:
    """Certificates of one network, each in a file of its own."""

    def __init__(self, folder: Path, *names: str) -> None:
        folder.mkdir()
        self.files = {name: folder / f"{name}.pem" for name in names}
        self.texts = {name: make_certificate(path, name) for name, path in self.files.items()}


@dataclass
class Doors:
    """Four doors over TCP, and the gateway's way to them."""

    street: Street
    keys: Keys
    listening: list[TlsAddress]

    def way(self, place: int, *, who: Path | None = None, to: str | None = None) -> TlsAddress:
        name = f"node{place}"
        at = self.listening[place]
        return calling(at.host, at.port, who or self.keys.files["gateway"], name, to or self.keys.texts[name])

    @property
    def ways(self) -> list[TlsAddress]:
        return [self.way(place) for place in range(4)]


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    keys = Keys(tmp_path / "keys", "gateway", *(f"node{place}" for place in range(4)))
    guests = {"gateway": keys.texts["gateway"]}
    listening = []
    for place in range(4):
        host = f"127.0.0.{11 + place}"
        listening.append(accepting(host, free_port(host), keys.files[f"node{place}"], guests))
    street = Street(tmp_path)
    street.doors[:] = listening
    with street.open():
        yield Doors(street, keys, listening)


def test_gateways_and_enforcers_come_to_doors_over_tcp(doors: Doors, tmp_path: Path) -> None:
    chain = doors.street.committee.chain
    acted: list[Entry] = []
    enforcer = Enforcer(chain, doors.ways, tmp_path / "enforcer", acted.append)
    with enforcer, Client(chain, doors.ways, "gateway", doors.street.committee.gateway) as gateway:
        for batch in range(4):
            assert len(gateway.submit(events(batch, 100)).result(DEADLINE_S)) == 100
        until(lambda: enforcer.height == 4)
    assert ledger_height(chain, doors.ways) == 4
    assert not verify_ledger(tmp_path / "enforcer", chain.keys).findings


def refused(address: TlsAddress) -> bool:
    try:
        ask(address, {"do": "status"}, 10.0)
    except OSError:
        return True
    return False


def test_strangers_do_not_get_through_a_door_and_a_door_can_pose_as_no_other(
    doors: Doors, tmp_path: Path
) -> None:
    other = Keys(tmp_path / "other", "gateway", "node0")
    assert not refused(doors.way(0))
    # of another network, under the same name
    assert refused(doors.way(0, who=other.files["gateway"]))
    # a node's, which has no business at others' doors
    assert refused(doors.way(0, who=doors.keys.files["node1"]))
    # a door that is another node's, or another network's
    assert refused(doors.way(0, to=doors.keys.texts["node1"]))
    assert refused(doors.way(0, to=other.texts["node0"]))
    # without a certificate
    naked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    naked.check_hostname = False
    naked.verify_mode = ssl.CERT_NONE
    at = doors.listening[0]
    assert refused(
        TlsAddress(at.host, at.port, naked, {ssl.PEM_cert_to_DER_cert(doors.keys.texts["node0"]): "x"})
    )
    # without the older protocols
    old = doors.way(0)
    old.context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    old.context.minimum_version = ssl.TLSVersion.TLSv1_2
    old.context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refused(old)
    # without TLS
    with contextlib.closing(socket.create_connection((at.host, at.port), 10.0)) as plain:
        plain.sendall(b'\x0f{"do":"status"}')
        with contextlib.suppress(OSError):
            assert b"said" not in plain.recv(4096)
    served = doors.street.served[0]
    until(lambda: served.refused["handshake"] >= 5)
    assert not served.counters and not refused(doors.way(0))


def test_a_certificate_that_another_signed_in_a_nodes_name_is_refused(doors: Doors, tmp_path: Path) -> None:
    """A node's own key signs a certificate that says "gateway"; only the listed one would do."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content = doors.keys.files["gateway"].read_bytes()
    issuer_key = form.load_pem_private_key(content, None)
    issuer = x509.load_pem_x509_certificate(content)
    assert isinstance(issuer_key, Ed25519PrivateKey)
    key = Ed25519PrivateKey.generate()
    made = (
        x509.CertificateBuilder(issuer.subject, issuer.subject, key.public_key(), 5)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        .sign(issuer_key, None)
    )
    path = tmp_path / "forged.pem"
    path.touch(0o600)
    pem = form.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption()) + made.public_bytes(pem)
    )
    assert refused(doors.way(0, who=path))


def test_strangers_who_say_nothing_hold_up_nobody(doors: Doors) -> None:
    at = doors.listening[0]
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(contextlib.closing(socket.create_connection((at.host, at.port), 10.0)))
        until(lambda: doors.street.served[0].refused["strangers"] >= 72)  # eight of one address may stay
        # from another address, at once
        way = doors.way(0)
        with socket.create_connection((at.host, at.port), 3.0, ("127.0.0.99", 0)) as plain:
            secure = way.context.wrap_socket(plain)
            assert way.other_side(secure) == "node0"
            secure.close()
    until(lambda: not refused(doors.way(0)))


def test_places_at_a_door_are_counted(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", "node", "gateway")
    port = free_port("127.0.0.1")
    at = accepting("127.0.0.1", port, keys.files["node"], {"gateway": keys.texts["gateway"]})
    way = calling("127.0.0.1", port, keys.files["gateway"], "node", keys.texts["node"])
    free = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"x")
        free.wait(60)

    listener = Listener(at, serve, most=2)
    with pytest.raises(UsageError, match="cannot listen there"):
        Listener(at, serve)
    listener.start()
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                one = stack.enter_context(contextlib.closing(connect(way, 10.0)))
                assert one.recv(1) == b"x"
            third = stack.enter_context(contextlib.closing(connect(way, 10.0)))
            with contextlib.suppress(OSError):
                assert third.recv(1) == b""
        assert listener.refused["many"] == 1 and listener.peak == 2
    finally:
        free.set()
        listener.stop()
    with pytest.raises(OSError):
        connect(way, 1.0)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", "node", "gateway")
    assert keys.files["node"].stat().st_mode & 0o077 == 0
    keys.files["node"].chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        accepting("127.0.0.1", 1, keys.files["node"], {"gateway": keys.texts["gateway"]})
    with pytest.raises(DataError, match="cannot use it"):
        accepting("127.0.0.1", 1, tmp_path / "none.pem", {"gateway": keys.texts["gateway"]})
    with pytest.raises(DataError, match="cannot use it"):
        calling("127.0.0.1", 1, keys.files["gateway"], "node", "nonsense")


def test_each_nodes_folder_has_all_that_its_host_needs_and_no_other_key(tmp_path: Path) -> None:
    create_network(tmp_path / "n", 4, hosts=["10.0.0.5", "[fd00::5]:4000", "db.example", "db.example:26658"])
    network = Network(tmp_path / "n")
    assert network.remote and not network.nodes
    assert [str(door) for door in network.doors] == [
        "10.0.0.5:26657",
        "[fd00::5]:4001",
        "db.example:26657",
        "db.example:26659",
    ]
    with pytest.raises(UsageError, match="give one a node"):
        Network(tmp_path / "n", addresses=["127.0.0.1:1"])
    private = [path for path in (tmp_path / "n").rglob("*.pem") if b"PRIVATE" in path.read_bytes()]
    assert len(private) == 2 + 4 * 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
    file = NodeFile.load(tmp_path / "n" / "node1")
    assert file.hosts is not None and len(file.hosts.peers("node1")) == 3
    assert file.hosts.peers("node1")[2].endswith("@db.example:26658")
    assert str(file.door(tmp_path / "n" / "node1")) == "[fd00::5]:4001"


def test_a_node_is_joined_where_it_can_run_alone_and_once(tmp_path: Path) -> None:
    create_network(tmp_path / "local", 1)
    with pytest.raises(UsageError, match="on one machine"):
        join(tmp_path / "local" / "node0")
    with pytest.raises(DataError, match="cannot read the node's file"):
        join(tmp_path)


PROGRAM = """
import logging, sys
from pathlib import Path
from phalanx.service.consensus.join import join
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
join(Path(sys.argv[1]))
"""


class Joined:
    """A node in a process of its own, as on its host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder.parent / f"{folder.name}.log"
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        return self._process.wait(60)


@pytest.mark.network
def test_four_hosts_joined_killed_joined_again_and_moved(tmp_path: Path) -> None:
    addresses = [f"127.0.0.{11 + place}" for place in range(4)]
    made = tmp_path / "made"
    create_network(made, 4, hosts=[f"{host}:{free_port(host)}" for host in addresses])
    folders = [tmp_path / f"host{place}" / "node" for place in range(4)]
    for place, folder in enumerate(folders):  # carried to its host
        folder.parent.mkdir()
        shutil.move(made / f"node{place}", folder)
    desk = tmp_path / "desk"
    shutil.move(made, desk)
    nodes = [Joined(folder) for folder in folders]
    network = Network(desk)
    acted: list[str] = []
    try:
        network.start(DEADLINE_S)
        with network.enforcer(lambda entry: acted.append(entry.body["digest"])) as enforcer:
            assert len(network.decisions(events(0), DEADLINE_S)) == 4
            nodes[2].end(signal.SIGKILL)
            assert len(network.decisions(events(1), DEADLINE_S)) == 4
            assert network.status()["node0"]["height"] > 0
            until(lambda: network.status()["node2"] is None)  # nothing of it outlives its process
            moved = folders[2].with_name("moved")
            shutil.move(folders[2], moved)
            nodes[2] = Joined(moved)
            network.wait(4, DEADLINE_S)
            with pytest.raises(UsageError, match="another process runs this node"):
                join(moved)
            assert len(network.decisions(events(2), DEADLINE_S)) == 4
            until(lambda: enforcer.height == 3)
            until(lambda: all(told and told["ledger"] == 3 for told in network.status().values()))
            until(lambda: "node node2 takes part in the consensus" in nodes[2].log)  # it looks twice a second
    finally:
        network.stop()
        codes = [node.end(signal.SIGTERM) for node in nodes]
    assert codes == [0, 0, 0, 0]
    assert nodes[2].log.endswith("node node2 has ended\n")
    assert len(acted) == len(set(acted)) == 3
    ledgers = [[entry.hash for entry in read_entries(node.folder / "ledger")] for node in nodes]
    assert len(ledgers[0]) == 3 and all(ledger == ledgers[0] for ledger in ledgers)
    assert not verify_ledger(desk / "enforcer", network.chain.keys).findings
    assert os.stat(moved / "door.pem").st_mode & 0o077 == 0


@pytest.mark.network
def test_hosts_of_ipv6_and_with_names_and_ones_that_bind_another_address(tmp_path: Path) -> None:
    try:
        six, name = free_port("::1"), free_port("0.0.0.0")
    except OSError:
        pytest.skip("this machine has no IPv6")
    create_network(tmp_path / "n", 2, hosts=[f"[::1]:{six}", f"localhost:{name}"])
    ended = threading.Event()
    nodes = [
        threading.Thread(target=join, args=(tmp_path / "n" / "node0",), kwargs={"ended": ended}),
        threading.Thread(
            target=join, args=(tmp_path / "n" / "node1",), kwargs={"ended": ended, "listen": "0.0.0.0"}
        ),
    ]
    for node in nodes:
        node.start()
    try:
        with Network(tmp_path / "n") as network:  # two of two: both must take part
            assert len(network.decisions(events(0), DEADLINE_S)) == 4
        settings = (tmp_path / "n" / "node1" / "config" / "config.toml").read_text()
        assert f'laddr = "tcp://0.0.0.0:{name}"' in settings and f"@[::1]:{six}" in settings
    finally:
        ended.set()
        for node in nodes:
            node.join()

"""Replaces a member whose keys somebody else may have, or that said two things: on one machine, or host by host.

The network is stopped, goes on as a new chain with that member's keys replaced, and keeps its ledger. On one machine
``replace_member`` does all. Over several hosts it takes four steps, for nobody but a host's own operator may sign with
its member's key: ``propose`` where the network's folder is, ``approve`` on the other hosts, ``adopt`` on each of them,
``finish`` where the network's folder is.
"""

import contextlib
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus import identity
from phalanx.service.consensus.chain import ChainMember
from phalanx.service.consensus.follower import ask
from phalanx.service.consensus.hosts import DOOR_KEY, Host, Hosts, parse_host, parse_hosts
from phalanx.service.consensus.network_file import NetworkFile, replacement_path
from phalanx.service.consensus.node import APPROVED, LEDGER, MEMBER_KEY, NodeFile
from phalanx.service.consensus.replacement import Replacement, signatures_flaw
from phalanx.service.consensus.tls import make_certificate
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import MEMBERS_FILE, Ledger
from phalanx.service.ledger_entry import Head, entry_line
from phalanx.service.ledger_files import new_segment, read_entries, segment_name
from phalanx.service.members import Members
from phalanx.service.statements import Statement
from phalanx.service.syncing import sync_folder

__all__ = ["adopt", "approve", "finish", "propose", "replace_member"]


def replace_member(folder: Path, name: str, why: str) -> None:
    """Gives a member of a network on this machine new keys; the network must have been stopped.

    What the old node left is kept in ``NAME.replaced-HEIGHT``. A replacement that was interrupted is gone on with.

    Args:
        folder: of the network.
        name: of the member.
        why: said in the ledger.

    Raises:
        UsageError: there is no such member; the network runs, has fewer than four members, is on several hosts, or
            another replacement is not finished.
        DataError: nodes have different entries at one height: more than f members lied.
    """
    file = NetworkFile.load(folder)
    if file.hosts is not None:
        raise UsageError(
            f"{folder}: its nodes are on hosts of their own; propose, approve, adopt and finish there"
        )
    file.chain.place_of(name)
    others = [member.name for member in file.chain.members if member.name != name]
    model = NodeFile.load(folder / others[0])  # what members are made of may be another than at the beginning
    file = replace(file, member=model.member, options=model.options)
    begun = file.unfinished(folder)
    if begun is None:
        path = _propose(folder, file, name, _level([folder / other for other in others]), why, None)
    else:
        path, made = begun
        if made.member != name:
            raise UsageError(f"{path}: the replacement of {made.member!r} is not finished. Replace it first")
    for other in others:
        if other not in Replacement.load(path).entry.signatures:
            approve(folder / other, path)
    for other in others:
        adopt(folder / other, path)
    finish(folder, path, folder / others[0] / LEDGER)


def propose(folder: Path, name: str, why: str, *, host: str | None = None) -> Path:
    """Proposes to replace a member of a network over several hosts, which runs and has nothing to decide.

    Stop the gateways first, and let the proposal go from host to host then: each node is stopped, approves, and adopts
    once a quorum of them has approved. A proposal that is given up, its file deleted, must have been adopted nowhere.

    Args:
        folder: of the network.
        name: of the member.
        why: said in the ledger.
        host: where its new node will be, as in ``create_network``; None: where the old one is.

    Returns:
        The proposal's file. The new node's folder, its keys in it, is beside the others: ``NAME.next``.

    Raises:
        UsageError: there is no such member or host; the network is on this machine, or has fewer than four members; or
            another replacement is not finished.
        DataError: fewer than a quorum of the other nodes answer, or they are not all at one height with nothing to
            decide.
    """
    file = NetworkFile.load(folder)
    if file.hosts is None:
        raise UsageError(f"{folder}: its nodes are on this machine; use replace_member")
    begun = file.unfinished(folder)
    if begun is not None:
        raise UsageError(
            f"{begun[0]}: the replacement of {begun[1].member!r} is not finished. Finish it, or delete the file where "
            "no node has adopted it"
        )
    file.chain.place_of(name)
    return _propose(folder, file, name, _told_head(folder, file, name), why, host)


def approve(folder: Path, proposal: Path) -> None:
    """Signs a replacement with this node's key; from then on the node takes no part in the chain before.

    Args:
        folder: of a node that has been stopped.
        proposal: file; the signature is added to it.

    Raises:
        UsageError: the node runs, is the one to be replaced, or has approved another replacement.
        DataError: the proposal does not follow this node's chain, or its ledger.
    """
    made, file = Replacement.load(proposal), NodeFile.load(folder)
    flaw = made.flaw_after(file.chain)
    if flaw is not None:
        raise DataError(f"{proposal}: {flaw}. Propose the replacement anew")
    if made.member == file.name:
        raise UsageError(f"{folder}: its own replacement is not this member's to approve")
    mark = folder / APPROVED
    if mark.exists() and Replacement.load(mark).entry.hash != made.entry.hash:
        raise UsageError(
            f"{mark}: another replacement was approved. Adopt that; or delete the file where no node has adopted it"
        )
    key = SigningKey.load(folder / MEMBER_KEY)
    with Ledger.open(folder / LEDGER, key, member=file.name, members=file.chain.keys) as ledger:
        height, before = made.entry.height - 1, ledger.head
        if (before.height, before.hash) != (height, made.entry.previous):
            raise DataError(
                f"{folder / LEDGER}: ends at height {before.height}, and the proposal goes on from another entry, of "
                f"height {height}. Start the nodes until all are at one height, and propose anew"
            )
        made.save(mark)  # before the signature is anywhere
    said = Statement.signed(key, file.name, made.entry.height, "entry", {"hash": made.entry.hash})
    made.signed({file.name: said.signature}).save(proposal)


def adopt(folder: Path, proposal: Path) -> None:
    """Takes a node over into the chain that a replacement begins; again after an interruption.

    Its ledger goes on with the entry that says so; its engine begins anew, what it had is kept in ``data.CHAIN``.

    Args:
        folder: of a node that has been stopped, not the replaced one.
        proposal: file with the signatures of a quorum.

    Raises:
        UsageError: the node runs, or is the one that is replaced.
        DataError: the proposal does not follow this node's chain or ledger, or too few have signed it.
    """
    made, file = Replacement.load(proposal), NodeFile.load(folder)
    entry, mark = made.entry, folder / APPROVED
    if file.chain != made.chain:
        flaw = made.flaw_after(file.chain) or signatures_flaw(entry, file.chain.keys)
        if flaw is not None:
            raise DataError(f"{proposal}: {flaw}. Nothing is adopted")
        if made.member == file.name:
            raise UsageError(f"{folder}: is the replaced member's; its new node is made by finish")
        _go_on(folder, file, made)
        _new_engine_data(folder, file.chain.name)
        after = NetworkFile(made.chain, made.peers, made.hosts, file.member, file.options)
        after.write_node(folder, file.name, made.time)
    mark.unlink(missing_ok=True)


def finish(folder: Path, proposal: Path, ledger: Path) -> None:
    """Completes the new node, and takes the network's own folder over into the new chain; again after an interruption.

    Over several hosts, bring the new node's folder to its host then, and join all.

    Args:
        folder: of the network.
        proposal: file with the signatures of a quorum.
        ledger: of a node that has adopted it, or a copy: the new node gets its entries up to the replacement.

    Raises:
        DataError: the proposal does not follow the network's chain, too few have signed it, or the ledger is not that
            of a node that adopted it.
    """
    file, made = NetworkFile.load(folder), Replacement.load(proposal)
    if file.chain == made.chain:
        return
    flaw = made.flaw_after(file.chain) or signatures_flaw(made.entry, file.chain.keys)
    if flaw is not None:
        raise DataError(f"{proposal}: {flaw}. Nothing is changed")
    fresh, node = folder / f"{made.member}.next", folder / made.member
    if fresh.exists():
        _copy_ledger(ledger, fresh / LEDGER, made)
        aside = folder / f"{made.member}.replaced-{made.entry.height - 1}"
        if node.exists() and not aside.exists():
            node.rename(aside)
        fresh.rename(node)
    made.save(replacement_path(folder, made))
    replace(file, chain=made.chain, peers=made.peers, hosts=made.hosts).save(folder)


def _propose(folder: Path, file: NetworkFile, name: str, head: Head, why: str, host: str | None) -> Path:
    fresh = folder / f"{name}.next"
    shutil.rmtree(fresh, ignore_errors=True)  # of an attempt that was interrupted before it proposed anything
    keys = identity.make_keys(fresh)
    public = SigningKey.create(fresh / MEMBER_KEY).public
    hosts = file.hosts
    if hosts is not None:
        place = parse_host(host or hosts.nodes[name].p2p)
        new = Host(*place, keys.node, make_certificate(fresh / DOOR_KEY, name))
        hosts = Hosts(
            {other: new if other == name else at for other, at in hosts.nodes.items()}, hosts.gateways
        )
        parse_hosts([at.p2p for at in hosts.nodes.values()], file.chain.n)
    made = Replacement.propose(
        file.chain,
        head,
        ChainMember(name, public, keys.validator),
        peers={**file.peers, name: keys.node},
        hosts=hosts,
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        why=why,
    )
    replace(file, chain=made.chain, peers=made.peers, hosts=hosts).write_node(fresh, name, made.time)
    path = replacement_path(folder, made)
    made.save(path)
    return path


def _told_head(folder: Path, file: NetworkFile, name: str) -> Head:
    """Where the ledgers end, as all nodes that answer say, the one to be replaced left out."""
    told: dict[str, tuple[int, str, bool]] = {}
    for member in file.chain.members:
        if member.name != name:
            with contextlib.suppress(OSError, DataError, KeyError, TypeError):
                status = ask(file.door(folder, member.name), {"do": "status"})
                told[member.name] = int(status["ledger"]), str(status["head"]), bool(status["pending"])
    if len(told) < file.chain.quorum:
        raise DataError(
            f"{len(told)} of the other nodes answer; {file.chain.quorum} are needed. Start them, or wait"
        )
    if len(set(told.values())) > 1 or any(pending for _, _, pending in told.values()):
        heights = ", ".join(f"{other} at {height}" for other, (height, _, _) in told.items())
        raise DataError(
            f"the nodes are not at rest ({heights}). Stop the gateways, and wait until all are at one height"
        )
    height, hashed, _ = next(iter(told.values()))
    return Head(height, hashed)


def _level(folders: list[Path]) -> Head:
    """Brings the ledgers of nodes that were stopped to the height of the longest, and returns where they end."""
    with contextlib.ExitStack() as stack:
        ledgers = []
        for folder in folders:
            file, key = NodeFile.load(folder), SigningKey.load(folder / MEMBER_KEY)
            opened = Ledger.open(folder / LEDGER, key, member=file.name, members=file.chain.keys)
            ledgers.append(stack.enter_context(opened))
        longest = max(ledgers, key=lambda ledger: ledger.head.height)
        source = folders[ledgers.index(longest)] / LEDGER
        for folder, ledger in zip(folders, ledgers, strict=True):
            for entry in read_entries(source, max(1, ledger.head.height)):
                ours = ledger.head
                if entry.height > ours.height and entry.previous == ours.hash:
                    ledger.append(entry.kind, entry.body)
                elif (entry.height, entry.hash) != (ours.height, ours.hash):
                    raise DataError(
                        f"{folder / LEDGER}: another entry of height {entry.height} than in {source}: more than f "
                        "members lied. Nobody is replaced; find out who signed what"
                    )
        return longest.head


def _go_on(folder: Path, file: NodeFile, made: Replacement) -> None:
    """Appends the replacement to a node's ledger, and lists the new key there; both once."""
    where, entry = folder / LEDGER, made.entry
    listed = Members.load(where / MEMBERS_FILE)
    if listed not in (file.chain.keys, made.chain.keys):
        raise DataError(
            f"{where / MEMBERS_FILE}: not the members of this node's chain. Restore it from a copy"
        )
    with Ledger.open(where, SigningKey.load(folder / MEMBER_KEY), member=file.name) as ledger:
        if ledger.head.hash == entry.previous:
            others = {m: s for m, s in entry.signatures.items() if m not in (file.name, made.member)}
            ledger.append(entry.kind, entry.body, others)
        if ledger.head.hash != entry.hash:
            raise DataError(
                f"{where}: ends at height {ledger.head.height} with another entry than the one that the replacement "
                "follows. Put the ledger aside, and copy that of another node"
            )
    made.chain.keys.save(where / MEMBERS_FILE)


def _new_engine_data(folder: Path, before: str) -> None:
    """Puts the engine's data of a chain aside and lets it begin anew: its heights, and what it knows to have signed."""
    data, aside, fresh = folder / "data", folder / f"data.{before}", folder / "data.next"
    if not aside.exists():
        data.rename(aside)
    if not data.exists():
        shutil.rmtree(fresh, ignore_errors=True)
        identity.begin_data(fresh)
        fresh.rename(data)
    sync_folder(folder)


def _copy_ledger(source: Path, target: Path, made: Replacement) -> None:
    """Copies a ledger up to a replacement, each entry checked."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    last = Head()
    try:
        with open(new_segment(target / segment_name(1), folder), "wb") as file:
            for entry in read_entries(source):
                file.write(entry_line(entry))
                last = entry.head
                if entry.height == made.entry.height:
                    break
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.close(folder)
    if last.hash != made.entry.hash:
        raise DataError(
            f"{source}: is not the ledger of a node that has adopted the replacement. Name that of one"
        )
    made.chain.keys.save(target / MEMBERS_FILE)

"""The rules of safety once more, as plainly as possible: what the tests hold the real ones against.

One list of everything that ever happened, looked through from its beginning each time; times in whole seconds.
"""

from dataclasses import dataclass, field

__all__ = ["Limits", "Model", "Record", "Thing"]

HOUR = 3_600


@dataclass(frozen=True)
class Limits:
    """Of the policy."""

    block: int
    quarantine: int
    wait: int
    cooldown: int
    per_host: int
    per_fleet: int
    alerts: int
    repeat: int


@dataclass(frozen=True)
class Thing:
    """What a process did to what."""

    host: str
    subject: str
    object: str
    guarded: bool
    parent: str


@dataclass
class Record:
    """A restriction."""

    thing: Thing
    verdict: str
    asked: int
    wall: int
    state: str
    since: int
    ended: int = -1
    freed: bool = False


@dataclass
class Model:
    """What should be in force."""

    limits: Limits
    shadow: bool
    records: list[Record] = field(default_factory=list)
    alerts: list[tuple[int, str, str, bool]] = field(default_factory=list)  # time, host, subject, shadow
    allowed: set[str] = field(default_factory=set)  # objects
    killed: bool = False
    unreal: list[Record] = field(default_factory=list)  # of shadow mode

    def lasts(self, record: Record) -> int:
        """For how long the record's present state lasts."""
        if record.state == "pending":
            return self.limits.wait
        return self.limits.quarantine if record.verdict == "quarantine" else self.limits.block

    def expire(self, now: int, wall: int) -> None:
        """Ends what is over."""
        for record in [*self.records, *self.unreal]:
            over = now >= record.since + self.lasts(record) or wall >= record.wall + self.lasts(record)
            if record.state in ("pending", "active") and over:
                record.state, record.ended = "expired", now

    def decide(
        self, verdict: str, quorum: bool, thing: Thing, now: int, wall: int
    ) -> tuple[str, list[str], Record | None]:
        """What should happen, the rules that should speak, and what should be in force then."""
        why = ["shadow"] if self.shadow else []
        if not quorum:
            verdict = "alert"
            why.append("no-quorum")
        if verdict == "allow":
            return "none", [], None
        effect = verdict
        if verdict in ("block", "quarantine"):
            self.expire(now, wall)
            effect, rule = self.milder(verdict, thing, now)
            why += [rule] if rule else []
            if effect == "none":
                return "none", why, None
        if effect != "alert" and thing.guarded:
            effect = "alert"
            why.append("guarded")
        if thing.object in self.allowed:
            return "none", [*why, "allow-listed"], None
        if effect == "alert":
            return *self.tell(thing, now, why), None
        record = Record(thing, verdict, now, wall, "pending" if effect == "ask" else "active", now)
        (self.unreal if self.shadow else self.records).append(record)
        return effect, why, record

    def milder(self, verdict: str, thing: Thing, now: int) -> tuple[str, str]:
        if self.killed:
            return "alert", "killed"
        own = self.unreal if self.shadow else self.records
        for record in [*self.records, *(self.unreal if self.shadow else [])]:
            if record.thing.host != thing.host:
                continue
            same = record.thing.subject == thing.subject and record.verdict == verdict
            same = same and (verdict == "quarantine" or record.thing.object == thing.object)
            held = record.verdict == "quarantine" and record.thing.subject in (thing.subject, thing.parent)
            if (record.state == "active" and (same or held)) or (record.state == "pending" and same):
                return "none", "in-force"
        for record in self.records:
            if record.freed and now < record.ended + self.limits.cooldown and record.thing.host == thing.host:
                one_process = record.thing.subject == thing.subject
                both_blocks = record.verdict == verdict == "block"
                if (one_process and not (both_blocks and record.thing.object != thing.object)) or (
                    record.verdict == "quarantine" and record.thing.subject == thing.parent
                ):
                    return "alert", "cooldown"
        recent = [record for record in own if now < self.counts_from(record) + HOUR]
        if len([record for record in recent if record.thing.host == thing.host]) >= self.limits.per_host:
            return "alert", "host-rate"
        if len(recent) >= self.limits.per_fleet:
            return "alert", "fleet-rate"
        return ("ask", "approval") if verdict == "quarantine" else ("block", "")

    def counts_from(self, record: Record) -> int:
        """When it was applied, else when it was asked for."""
        return record.since

    def tell(self, thing: Thing, now: int, why: list[str]) -> tuple[str, list[str]]:
        own = [(t, host, subject) for t, host, subject, shadow in self.alerts if shadow == self.shadow]
        times = [t for t, host, subject in own if (host, subject) == (thing.host, thing.subject)]
        if times and now < max(times) + self.limits.repeat:
            return "none", [*why, "alert-repeat"]
        if len([t for t, _, _ in own if now < t + HOUR]) >= self.limits.alerts:
            return "none", [*why, "alert-rate"]
        self.alerts.append((now, thing.host, thing.subject, self.shadow))
        return "alert", why

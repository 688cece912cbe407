"""The simulator's numbers as a page for people, written from the catalogue, the settings and the scenarios.

``python -m phalanx.envs.sim_docs`` prints what docs/catalogue.md holds.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from phalanx.envs.catalogue import (
    BEACON,
    BENIGN_KIND_MIX,
    ENTRY_PROGRAMS,
    KINDS,
    NOTABLE_SHARE,
    OPERATIONS_PER_S,
    PROGRAMS,
    ROLES,
    SOURCES,
    STAGES,
    TEMPLATES,
)
from phalanx.envs.scenarios import SCENARIOS
from phalanx.envs.sim_config import SimulatorConfig
from phalanx.envs.sim_tables import bait_templates

__all__ = ["catalogue_markdown", "differences", "markdown_table"]

_FAULTS = {
    "lost": ("an attack step that starts no process and completes no stage is never reported", "choice"),
    "duplicated": ("an event is reported twice", "choice"),
    "late": ("an event is reported after it happened; no verdict undoes it", "choice"),
    "poison": ("the label in what members and baselines learn from is wrong; the score never sees it", "choice"),
    "drift": ("programs move their file work to other areas at some time of the episode", "choice"),
    "rollout": ("updates roll out to all hosts at once, for ten minutes", "choice"),
}  # fmt: skip

_ATTACKERS = {
    "pace": ("factor on all delays, log-uniform", "tc"),
    "stealth": ("share of the attempts that are ordinary work or a beacon", "choice"),
    "failure": ("probability that a step fails by itself", "engagement"),
    "patience": ("refusals in a row after which the attacker leaves", "choice"),
    "reentry": ("probability that a stopped campaign comes in again", "choice"),
    "reentry_kept": ("added to it once persistence was reached", "choice"),
    "reentry_s": ("mean time until then, s", "choice"),
    "latest": ("probability of acting through the newest process, not the oldest", "choice"),
    "mimicry": ("probability of taking the records that the program shows anyway", "choice"),
    "final_damage": ("damage of the completed last stage, on top of its steps", "choice"),
}


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(markdown_table(["kind", "share"], [["READ", 0.25]]))
        | kind | share |
        |---|---|
        | READ | 0.25 |
    """
    head = [str(name) for name in header]
    lines = [head, *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])


def differences(settings: Any, base: Any) -> dict[str, Any]:
    """The fields of a settings record that are not the base's, by dotted name.

    Example:
        >>> from dataclasses import replace
        >>> office = SimulatorConfig()
        >>> differences(replace(office, lost=0.1, attack=replace(office.attack, latest=0.5)), office)
        {'lost': 0.1, 'attack.latest': 0.5}
    """
    found: dict[str, Any] = {}
    for field in fields(settings):
        mine, other = getattr(settings, field.name), getattr(base, field.name)
        if is_dataclass(mine):
            found |= {f"{field.name}.{name}": value for name, value in differences(mine, other).items()}
        elif mine != other:
            found[field.name] = mine
    return found


def catalogue_markdown() -> str:
    """The page docs/catalogue.md: every table of the simulated world, each row with its source."""
    parts = (
        _HEAD,
        _sources(),
        _kinds(),
        _templates(),
        _programs(),
        _roles(),
        _stages(),
        _techniques(),
        _attackers(),
        _faults(),
        _scenarios(),
    )
    return "\n\n".join(parts) + "\n"


_HEAD = """# Catalogue of the simulated world

Written by `python -m phalanx.envs.sim_docs` from `catalogue`, `sim_config` and `scenarios` in `envs`; change
those, not this page. What the world does with these numbers is in [simulator.md](simulator.md). The column *source*
names an entry of the first table."""


def _section(title: str, note: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    return f"## {title}\n\n{note}\n\n{markdown_table(header, rows)}"


def _sources() -> str:
    return _section("Sources", "What the numbers rest on.", ["source", "what it is"], SOURCES.items())


def _kinds() -> str:
    note = (
        "The names are those of the DARPA Common Data Model. *Reference* is the share among the operations "
        f"of a real host, which showed {OPERATIONS_PER_S} operations a second; the mixes below are set so "
        "that benign operations come near it."
    )
    used = {kind: [name for name, t in TEMPLATES.items() if t.kind == kind] for kind in KINDS}
    rows = (
        (
            kind,
            f"{BENIGN_KIND_MIX[kind]:.2%}" if kind in BENIGN_KIND_MIX else "-",
            _some(used[kind]),
            "trace-e5" if kind in BENIGN_KIND_MIX else "choice",
        )
        for kind in KINDS
    )
    return _section("Kinds of operations", note, ["kind", "reference", "types of records", "source"], rows)


def _templates() -> str:
    note = (
        "A record stands for *operations* like operations of a process on an object, drawn log-uniformly "
        "between 1/e and e times the number given (never below one; 1: always one). *Bytes* is drawn between "
        "1/3.3 and 3.3 times the number given. *Bait* marks types that attack techniques use and benign work "
        "shows rarely."
    )
    bait = bait_templates()
    rows = (
        (
            name,
            t.kind,
            t.object_kind,
            _or_none(t.area),
            _or_none(t.port),
            f"{math.exp(t.log_size):,.0f}" if t.log_size else "-",
            f"{t.count:g}",
            "yes" if bait[name] else "",
            "trace-e5, choice" if t.count > 1 else "choice",
        )
        for name, t in TEMPLATES.items()
    )
    header = ["type", "kind", "acts on", "area", "port", "bytes", "operations", "bait", "source"]
    return _section("Types of records", note, header, rows)


def _programs() -> str:
    note = (
        f"{NOTABLE_SHARE:.0%} of a program's records are *other records* (trace-e5), the rest is routine work "
        "on its *areas*, its memory and the network. *Rate* is relative. *Job* is what it is when it looks "
        "like an attack. An attacker who *comes in* through a program runs the one named there."
    )
    rows = (
        (
            name,
            f"{p.rate:g}",
            p.uid,
            p.job or "-",
            _weights(p.areas),
            _weights(p.notable),
            _weights(p.children),
            ENTRY_PROGRAMS.get(name, "-"),
            "yes" if p.held_out else "",
            "attack, choice" if name in ENTRY_PROGRAMS else "choice",
        )
        for name, p in PROGRAMS.items()
    )
    header = [
        "program", "rate", "user id", "job", "areas", "other records", "starts", "comes in", "held out", "source",
    ]  # fmt: skip
    return _section("Programs", note, header, rows)


def _roles() -> str:
    weights = SimulatorConfig().roles
    note = (
        "A host's long-lived processes, one for each program named. *Swing* is how far its pace moves "
        "between night and day: 0 not at all, 1 from 0 to twice the mean, the peak at 14:00; below 0 it "
        "works at night. *Weight* is that of the office."
    )
    rows = (
        (name, ", ".join(role.programs), f"{role.day:g}", f"{weight:g}", "choice")
        for (name, role), weight in zip(ROLES.items(), weights, strict=True)
    )
    return _section("Roles of hosts", note, ["role", "programs", "swing", "weight", "source"], rows)


def _stages() -> str:
    note = (
        "In the order in which a campaign takes them. *Delay* is the wait before a stage's first step "
        "(log-uniform), *gap* the mean wait between steps within it, both at the pace 1. *Damage* is that of "
        "each successful step, in units of one benign record lost (choice). Its source is that of the delay. "
        "About a third of the campaigns are after theft, a third after ruin (without collection and "
        "exfiltration), a third after both; the first have no impact."
    )
    rows = (
        (
            number,
            name,
            s.needed,
            f"{s.damage:g}",
            f"{s.delay_s[0]:g} to {s.delay_s[1]:g} s",
            f"{s.gap_s:g} s",
            f"{s.skipped:.0%}",
            f"{s.child} on another host" if s.moves else s.child or "-",
            s.source,
        )
        for number, (name, s) in enumerate(STAGES.items(), start=1)
    )
    header = ["", "stage", "steps", "damage", "delay", "gap", "left out by", "then starts", "source"]
    return _section("Stages of a campaign", note, header, rows)


def _techniques() -> str:
    note = (
        "How a stage is taken; numbers and names follow MITRE ATT&CK, the weights of the records are a "
        "reading of its pages. A refused attacker changes to the stage's next technique. Held-out ones are "
        "used in held-out scenarios alone, in place of the others."
    )
    staged = [(name, t) for name, stage in STAGES.items() for t in stage.techniques]
    rows = (
        (
            t.attack,
            t.about,
            name,
            _weights(t.mix),
            "yes" if t.held_out else "",
            "engagement" if t is BEACON else "attack",
        )
        for name, t in [*staged, ("while waiting", BEACON)]
    )
    return _section(
        "Techniques", note, ["number", "technique", "stage", "records", "held out", "source"], rows
    )


def _attackers() -> str:
    attack = SimulatorConfig().attack
    note = "Drawn once per campaign where a range is given; values of the office."
    rows = (
        (name, about, _value(getattr(attack, name)), source) for name, (about, source) in _ATTACKERS.items()
    )
    return _section("Attackers", note, ["setting", "what it is", "value", "source"], rows)


def _faults() -> str:
    office, noisy = SCENARIOS["office"].config, SCENARIOS["noisy"].config
    note = "Probabilities; drift and roll-outs are per episode, the others per event."
    rows = (
        (name, about, _value(getattr(office, name)), _value(getattr(noisy, name)), source)
        for name, (about, source) in _FAULTS.items()
    )
    return _section(
        "Faults of the sensors, and change", note, ["setting", "what happens", "office", "noisy", "source"], rows
    )  # fmt: skip


def _scenarios() -> str:
    note = (
        "Worlds by name. *Base rate* is the share of malicious events that figures are weighted to, by "
        "episodes without attackers; where it is empty the simulated share stands. Nothing may be trained, "
        "tuned or chosen in a held-out one."
    )
    office = SCENARIOS["office"].config
    rows = (
        (
            name,
            s.about,
            s.config.n_hosts,
            f"{s.config.host_rate_hz:g}",
            s.config.episode_events,
            f"{s.base_rate:.3g}" if s.base_rate is not None else "",
            _changes(s.config, office),
            "yes" if s.held_out else "",
            "choice",
        )
        for name, s in SCENARIOS.items()
    )
    header = [
        "scenario", "about", "hosts", "records per host and second", "records", "base rate",
        "differs from the office in", "held out", "source",
    ]  # fmt: skip
    return _section("Scenarios", note, header, rows)


def _changes(config: SimulatorConfig, office: SimulatorConfig) -> str:
    shown = {"n_hosts", "host_rate_hz", "episode_events"}
    found = {name: value for name, value in differences(config, office).items() if name not in shown}
    return ", ".join(f"{name.removeprefix('attack.')} {_value(value)}" for name, value in found.items())


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return (" to " if len(value) == 2 else ", ").join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _weights(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items())


def _or_none(name: str) -> str:
    return "-" if name == "none" else name


def _some(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "-"


if __name__ == "__main__":
    print(catalogue_markdown(), end="")

"""The doctor's look at a training run: phalanx's own, of one seed or several, or anybody's log."""

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phalanx.analysis.doctor.course import Course
from phalanx.analysis.doctor.finding import SEVERITIES, Finding, subject
from phalanx.analysis.doctor.run import examine_run, ordered
from phalanx.analysis.doctor.settings import SETTINGS, check_settings
from phalanx.analysis.logs import STANDARD, read_log
from phalanx.errors import DataError, unknown_name
from phalanx.files import read_structured

__all__ = ["checkup", "checkup_settings", "merged"]


def checkup(path: Path, mapping: Mapping[str, str] | None = None) -> tuple[dict[str, Any], list[Finding]]:
    """What ails a run.

    Args:
        path: a run folder (of several seeds, too), a TensorBoard folder, or a log file.
        mapping: see ``analysis.logs.read_log``.

    Returns:
        What was read, and the findings: of several seeds, each once, from where it came first.

    Raises:
        UsageError: a map that names nothing.
        DataError: no log there, or a damaged one.
    """
    seeds = sorted(path.glob("seed-*"), key=lambda p: (len(p.name), p.name)) if path.is_dir() else []
    seeds = [each for each in seeds if each.is_dir()]
    logs, missing = [], []
    for each in seeds or [path]:
        try:
            logs.append(read_log(each, mapping))
        except DataError as error:
            if len(seeds) < 2:
                raise
            missing.append(f"{each.name} is left out: {error}")
    if not logs:
        raise DataError(f"{path}: none of its {len(seeds)} seeds has a log yet")
    home = path if path.is_dir() else path.parent
    config = _config(home)
    budget = None if config is None else config.get("iterations")
    found = [examine_run(log, max(int(budget), len(log)) if budget else None) for log in logs]
    findings = merged(found) if len(logs) > 1 else found[0]
    if config is not None:
        findings = _with_settings(findings, _of_settings(config))
    read = sorted({name for log in logs for name in log.series if not name.startswith("member/")})
    about = {
        "source": str(path),
        "tool": logs[0].tool,
        "seeds": len(logs),
        "rows": max(len(log) for log in logs),
        "budget": budget,
        "improved": sum(bool(Course(log, len(log)).improved[-1]) for log in logs),
        "read": read,
        "missing": [name for name in STANDARD if name not in read],
        "unread": sorted({name for log in logs for name in log.unread}),
        "notes": [
            *missing,
            *_little(max(len(log) for log in logs), read),
            *dict.fromkeys(note for log in logs for note in log.notes),
        ],
    }
    return about, findings


def _little(rows: int, read: Sequence[str]) -> list[str]:
    """What keeps "healthy" from meaning much."""
    few = (
        [f"few updates: {rows}; most rules need 10 to 25, those on progress half of the budget"]
        if rows < 10
        else []
    )
    blind = sum(name in STANDARD for name in read) < 4
    return [
        *few,
        *(["few of the quantities that rules look at are in this log: healthy says little"] if blind else []),
    ]


def checkup_settings(path: Path) -> list[Finding]:
    """The findings on a file of settings: a ``config.json``, or TOML or JSON of the same keys.

    Raises:
        DataError: no such file, not an object, or a value of another kind.
    """
    config = read_structured(path, "file of settings")
    if not isinstance(config, Mapping) or not set(SETTINGS) & set(config):
        raise DataError(
            f"{path}: none of the settings that are judged is in it ({', '.join(SETTINGS)}); expected the "
            "config.json of a run, or a file of such keys"
        )
    preset = config.get("preset")
    if isinstance(preset, str):
        from phalanx.runtime.config import PRESETS

        if preset not in PRESETS:
            raise DataError(f"{path}: {unknown_name('preset', preset, tuple(PRESETS))}")
    for name in config:
        close = difflib.get_close_matches(name, SETTINGS, 1, 0.75)
        if close and name not in SETTINGS and close[0] not in config:
            raise DataError(f"{path}: {name!r} is no setting; did you mean {close[0]!r}?")
    return ordered(_of_settings(config))


def _of_settings(config: Mapping[str, Any]) -> list[Finding]:
    """The findings on settings, those of their preset filled in, and on the reward that they choose."""
    preset = config.get("preset")
    known = set(SETTINGS) <= set(config)  # as in the file of a run, which needs no preset to be filled in
    if not isinstance(preset, str) or preset == "default" or (preset != "original" and known):
        return check_settings(config)
    from phalanx.runtime.config import PRESETS  # loads JAX, which logs of other tools need not wait for
    from phalanx.runtime.rehearsal import rehearse_settings

    full = {**PRESETS.get(preset, {}), **config}
    return [*check_settings(full), *rehearse_settings(full)]


def _config(folder: Path) -> dict[str, Any] | None:
    """The settings of phalanx's own run; None where this is another tool's."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None
    return config if isinstance(config, dict) and "phalanx_version" in config else None


def merged(found: Sequence[Sequence[Finding]]) -> list[Finding]:
    """The findings of several seeds: each symptom once (of each specification), as it was where it is gravest or else
    first, with the number of seeds that show it.

    Args:
        found: of each seed.
    """
    first: dict[Any, Finding] = {}
    seeds: dict[Any, set[int]] = {}
    for seed, findings in enumerate(found):
        for finding in findings:
            key = _about(finding)
            if key not in first or _grave(finding) < _grave(first[key]):
                first[key] = finding
            seeds.setdefault(key, set()).add(seed)
    told = [
        dataclasses.replace(
            finding, evidence={**finding.evidence, "seeds": f"{len(seeds[key])} of {len(found)}"}
        )
        for key, finding in first.items()
    ]
    return ordered(told)


def _with_settings(findings: Sequence[Finding], of_settings: Sequence[Finding]) -> list[Finding]:
    """Findings of the run and of its settings; what both say is said once, by the graver of them."""
    known = {_about(finding): finding for finding in findings}
    graver = {
        _about(finding): finding
        for finding in of_settings
        if _about(finding) not in known or _grave(finding)[0] < _grave(known[_about(finding)])[0]
    }
    return ordered([*(finding for finding in findings if _about(finding) not in graver), *graver.values()])


def _about(finding: Finding) -> tuple[str, Any]:
    """The symptom and what it is about."""
    return finding.symptom, subject(finding)


def _grave(finding: Finding) -> tuple[int, int]:
    return SEVERITIES.index(finding.severity), finding.iteration or 0

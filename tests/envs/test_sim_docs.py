"""The page of the catalogue: it is what the code says, and every row says what it rests on."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from phalanx.envs import sim_event
from phalanx.envs.catalogue import (
    AREAS,
    BENIGN_KIND_MIX,
    KINDS,
    PROGRAMS,
    ROLES,
    SOURCES,
    STAGES,
    TECHNIQUES,
    TEMPLATES,
)
from phalanx.envs.scenarios import SCENARIOS
from phalanx.envs.sim_campaign import AttackConfig
from phalanx.envs.sim_config import SimulatorConfig
from phalanx.envs.sim_docs import catalogue_markdown, differences, markdown_table

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "catalogue.md"


def tables() -> dict[str, list[dict[str, str]]]:
    """The page's tables by their heading: one record a row."""
    found: dict[str, list[dict[str, str]]] = {}
    for section in catalogue_markdown().split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        assert len({len(row) for row in (cells[0], *cells[2:])}) == 1, title
        found[title] = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    return found


def test_the_page_is_what_the_code_says() -> None:
    remedy = "write it anew: .venv/bin/python -m phalanx.envs.sim_docs > docs/catalogue.md"
    assert PAGE.read_text() == catalogue_markdown(), remedy


def test_every_row_names_known_sources() -> None:
    for title, rows in tables().items():
        for row in rows:
            assert set(row["source"].split(", ")) <= set(SOURCES), (title, row)
    for name, stage in STAGES.items():
        assert stage.source in SOURCES, name
    shown = {
        source for rows in list(tables().values())[1:] for row in rows for source in row["source"].split(", ")
    }
    assert shown == set(SOURCES)


def test_nothing_is_left_out() -> None:
    shown = {
        title: [row[column] for row in tables()[title]]
        for title, column in (
            ("Sources", "source"), ("Kinds of operations", "kind"), ("Types of records", "type"),
            ("Programs", "program"), ("Roles of hosts", "role"), ("Stages of a campaign", "stage"),
            ("Techniques", "number"), ("Scenarios", "scenario"),
        )
    }  # fmt: skip
    assert shown == {
        "Sources": list(SOURCES),
        "Kinds of operations": list(KINDS),
        "Types of records": list(TEMPLATES),
        "Programs": list(PROGRAMS),
        "Roles of hosts": list(ROLES),
        "Stages of a campaign": list(STAGES),
        "Techniques": [technique.attack for technique in TECHNIQUES],
        "Scenarios": list(SCENARIOS),
    }
    drawn = {field.name for field in fields(AttackConfig)} - {"fewest", "most", "onset_share"}
    assert {row["setting"] for row in tables()["Attackers"]} == drawn


def test_numbers_are_those_of_the_catalogue() -> None:
    page = tables()
    for row in page["Kinds of operations"]:
        share = float(row["reference"].rstrip("%")) / 100 if row["reference"] != "-" else 0.0
        assert share == pytest.approx(BENIGN_KIND_MIX.get(row["kind"], 0.0), abs=5e-5)
    for row, template in zip(page["Types of records"], TEMPLATES.values(), strict=True):
        assert float(row["operations"]) == template.count
        assert row["area"] == "-" or row["area"] in AREAS
        size = 0.0 if row["bytes"] == "-" else math.log(float(row["bytes"].replace(",", "")))
        assert size == pytest.approx(template.log_size, abs=1e-3)
    for row, stage in zip(page["Stages of a campaign"], STAGES.values(), strict=True):
        low, high = (float(number) for number in row["delay"].removesuffix(" s").split(" to "))
        assert ((low, high), float(row["damage"]), int(row["steps"])) == (
            stage.delay_s, stage.damage, stage.needed,
        )  # fmt: skip
    text = catalogue_markdown()
    assert f"1/{math.exp(sim_event._SIZE_SPREAD):.1f} and" in text  # as the note on types of records says
    assert sim_event._COUNT_SPREAD == 1.0


def test_every_setting_that_a_scenario_changes_is_shown() -> None:
    office = SCENARIOS["office"].config
    for row in tables()["Scenarios"]:
        config = SCENARIOS[row["scenario"]].config
        for name in differences(config, office):
            shown = {
                "n_hosts": "hosts",
                "host_rate_hz": "records per host and second",
                "episode_events": "records",
            }
            if name in shown:
                assert float(row[shown[name]]) == getattr(config, name)
            else:
                assert name.removeprefix("attack.") in row["differs from the office in"], row
    assert not differences(office, office)


def test_differences_are_found_in_nested_settings() -> None:
    base = SimulatorConfig()
    other = replace(base, n_hosts=9, response=replace(base.response, analysts=7))
    assert differences(other, base) == {"n_hosts": 9, "response.analysts": 7}


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"

"""Rules fire exactly where their definition, read event by event, says so."""

import dataclasses
import math
from fnmatch import fnmatchcase

import jax.numpy as jnp
import numpy as np
import pytest
from runtime.streams import drive, stream

from phalanx.errors import UsageError
from phalanx.runtime.episodes import Seen
from phalanx.runtime.rule_table import FIELDS, LEVELS, RULES, Rule
from phalanx.runtime.rules import RuleFamily, RulePolicy, compile_rules, fit_rules, rule_hits
from phalanx.runtime.vocabulary import UNSEEN_TEXT, NumberScale, Vocabulary

KINDS = (UNSEEN_TEXT, "", "EXECUTE", "READ", "WRITE", "CONNECT", "SENDMSG")
PATHS = (UNSEEN_TEXT, "", "/tmp/a", "/etc/shadow", "/srv/x.zip")
COMMANDS = (UNSEEN_TEXT, "", "/usr/bin/shell -c task", "office", "backup --service")
SCALES = {"remote_port": NumberScale(0, 1.0, 2.5), "size": NumberScale(1, 4.0, 4.0)}
VOCABULARY = Vocabulary(
    places={"kind": 0, "path": 1, "command": 2},
    values={"kind": KINDS, "path": PATHS, "command": COMMANDS},
    scales=SCALES,
    numbers={"remote_port": 0, "size": 1, "ticket_open": 2},
)
OWN = (
    Rule(
        "shell in tmp", "T1204", "medium", {"kind": ("EXECUTE",), "path": ("/tmp/*",), "program": ("shell",)}
    ),
    Rule("secrets", "T1003", "high", {"path": ("/etc/shadow",)}, {"program": ("backup", "office")}),
    Rule("no path", "T1055", "low", {"path": ("",)}),
    Rule("fan-out", "T1021", "high", {"port": (22, 445)}, {"program": ("backup",)}, times=2, window=6),
    Rule("odd port", "T1046", "low", {"kind": ("CONNECT",)}, {"port": (22, 80)}),
    Rule("archive", "T1560", "low", {"kind": ("WRITE",)}, {"program": ("backup",)}),
    Rule("archive, then sent", "T1048", "critical", {"size|gte": (1000,)}, after="archive", window=5),
)


def events(seed: int = 0, steps: int = 120) -> Seen:
    rng = np.random.default_rng(seed)
    seen = stream((len(KINDS), len(PATHS), len(COMMANDS)), 3, steps=steps, seed=seed)
    raw = [
        rng.choice([0, 22, 80, 445, 8443], seen.label.shape),
        rng.choice([0, 999, 1000, 5000], seen.label.shape),
    ]
    scaled = [(np.log1p(x) - scale.mean) / scale.std for x, scale in zip(raw, SCALES.values(), strict=True)]
    numeric = np.stack([*scaled, (rng.random(seen.label.shape) < 0.3) * 1.0], axis=-1).astype(np.float32)
    return seen._replace(numeric=numeric)


def matches(rule: Rule, texts: dict[str, str], numbers: dict[str, float]) -> bool:
    """The definition of a match, in plain Python."""

    def fits(name: str, patterns: tuple[str | int, ...]) -> bool:
        column = FIELDS[name.split("|")[0]]
        if name.endswith("|gte"):
            return numbers[column] >= patterns[0]  # type: ignore[operator]
        if column in numbers:
            return numbers[column] in patterns
        text = texts[column]
        if name in ("program", "parent"):
            text = text.split()[0].split("/")[-1] if text.split() else ""
        return any(fnmatchcase(text, str(pattern)) for pattern in patterns)

    wanted = all(fits(name, patterns) for name, patterns in rule.selection.items())
    return wanted and not any(fits(name, patterns) for name, patterns in rule.unless.items())


def brute_force(rules: tuple[Rule, ...], seen: Seen) -> np.ndarray:
    steps, envs = seen.label.shape
    fired = np.zeros((steps, envs, len(rules)), bool)
    for env in range(envs):
        memory: dict[
            int, dict[str, tuple[int, int]]
        ] = {}  # process -> rule -> (step of the last match, in a row)
        for t in range(steps):
            texts = {
                name: values[seen.category[t, env, place]]
                for place, (name, values) in enumerate(VOCABULARY.values.items())
            }
            numbers = {
                name: round(math.expm1(float(seen.numeric[t, env, s.place]) * s.std + s.mean)) * 1.0
                for name, s in SCALES.items()
            }
            source = int(seen.source[t, env])
            before = dict(memory.get(source, {})) if source >= 0 else {}
            after = dict(before)
            for i, rule in enumerate(rules):
                if not matches(rule, texts, numbers):
                    continue
                last, count = before.get(rule.name, (-(10**9), 0))
                count = count + 1 if t - last <= rule.window else 1
                after[rule.name] = (t, count)
                led = not rule.after or t - before.get(rule.after, (-(10**9), 0))[0] <= rule.window
                fired[t, env, i] = count >= rule.times and led
            memory[int(seen.entity[t, env])] = after
    return fired


@pytest.mark.parametrize("seed", range(3))
def test_rules_fire_as_a_plain_reading_of_them(seed: int) -> None:
    seen = events(seed)
    found = rule_hits(compile_rules(VOCABULARY, OWN), seen, 4)
    expected = brute_force(OWN, seen)
    np.testing.assert_array_equal(found, expected)
    assert expected.any(axis=(0, 1)).all(), "every rule fires somewhere, or this would prove nothing"


def test_the_table_of_rules_reads_the_simulator() -> None:
    from phalanx.envs.simulator import Simulator

    compiled = compile_rules(Vocabulary.of(Simulator()))
    assert not compiled.left_out and compiled.names == tuple(rule.name for rule in RULES)
    possible = np.ones(compiled.n, bool)
    for table in compiled.tables:
        possible &= np.asarray(table).any(axis=1)
    assert possible.all(), "a rule that no event can match"
    assert len(RULES) >= 15 and all(rule.attack.startswith("T1") for rule in RULES)


def test_rules_without_their_column_are_left_out_and_named() -> None:
    bare = Vocabulary(places={"kind": 0}, values={"kind": KINDS})
    compiled = compile_rules(bare, (*OWN, Rule("any send", "T1041", "low", {"kind": ("SENDMSG",)})))
    assert compiled.names == ("any send",)
    assert ("secrets", "path") in compiled.left_out and ("archive, then sent", "size") in compiled.left_out
    with pytest.raises(UsageError, match="none of the columns"):
        compile_rules(bare, OWN)


def test_a_sequence_is_left_out_with_what_it_follows() -> None:
    bare = Vocabulary(places={"kind": 0}, values={"kind": KINDS}, scales=SCALES)
    compiled = compile_rules(bare, OWN)
    assert ("archive", "command") in compiled.left_out and (
        "archive, then sent",
        "command",
    ) in compiled.left_out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": "grave"}, "level"),
        ({"selection": {"colour": ("red",)}}, "field of a rule"),
        ({"after": "x"}, "'x'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compile_rules(VOCABULARY, (dataclasses.replace(OWN[0], **change),))  # type: ignore[arg-type]


def test_the_severest_verdict_of_the_rules_in_use_is_given() -> None:
    seen = events(1)
    fired = brute_force(OWN, seen)
    on = np.array([True, True, False, True, True, False, True])
    verdict = np.array([1, 0, 2, 3])
    policy = RulePolicy(
        compile_rules(VOCABULARY, OWN),
        jnp.asarray(np.tile(verdict, (3, 1)), jnp.int32),
        jnp.asarray(np.tile(on, (3, 1))),
        n_entities=4,
        ticket_open=2,
    )
    answers, suspicion = drive(policy, seen)
    level = np.array([LEVELS.index(rule.level) for rule in OWN])
    expected = np.where(fired & on, verdict[level], 0).max(axis=-1)
    expected = np.where((expected == 1) & (seen.numeric[..., 2] > 0.5), 0, expected)
    np.testing.assert_array_equal(answers, expected)
    np.testing.assert_array_equal(suspicion, np.where(fired & on, level + 1, 0).max(axis=-1))
    assert set(np.unique(answers)) == {0, 1, 2, 3}


def test_precision_is_the_weighted_share_of_hits_that_are_malicious() -> None:
    seen = events(2)
    weight = np.array([1.0, 0.25, 3.0])
    family = fit_rules(VOCABULARY, 4, seen, weight, OWN)
    fired = brute_force(OWN, seen)
    for i in range(len(OWN)):
        hits = (fired[..., i] * weight).sum()
        right = (fired[..., i] * (seen.label == 1) * weight).sum()
        assert family.precision[i] == pytest.approx(right / hits)


def test_settings_put_verdicts_in_order_and_switch_noisy_rules_off() -> None:
    compiled = compile_rules(VOCABULARY, OWN)
    precision = np.array([0.9, 0.1, np.nan, 0.5, 0.49, 0.0, 1.0])
    family = RuleFamily(compiled, precision, 4, 2)
    setting = {"low": "quarantine", "medium": "allow", "high": "alert", "critical": "alert", "precision": 0.5}
    policy = family.build([setting, {**setting, "precision": 0.0}], 2)
    assert policy.verdict.shape == (4, 4) and np.asarray(policy.verdict[0]).tolist() == [0, 1, 1, 3]
    assert np.asarray(policy.on[0]).tolist() == [True, False, True, True, False, False, True]
    assert np.asarray(policy.on[2]).all()
    told = family.explain(setting)
    assert told["switched_off"] == ["secrets", "odd port", "archive"] and told["critical"] == "quarantine"

"""Detection rules as a policy: compiled to tables over ids, with the verdict of each level and noisy rules tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phalanx.errors import UsageError, unknown_name
from phalanx.runtime.episodes import Seen
from phalanx.runtime.policies import ScoredPolicy, note, recall, without_repeats
from phalanx.runtime.rule_table import FIELDS, LEVELS, RULES, Rule
from phalanx.runtime.tuning import Dimension
from phalanx.runtime.vocabulary import NumberScale, Vocabulary, program_of
from phalanx.types import Verdict

__all__ = ["CompiledRules", "RuleFamily", "RulePolicy", "compile_rules", "fit_rules", "rule_hits"]

_LONG_AGO = -(2**30)
_COMMAND_LINES = ("program", "parent")


class CompiledRules(eqx.Module):
    """Rules as tables.

    Attributes:
        tables: per categorical column that a rule reads, which ids fit.
        allowed: per numeric column, numbers that fit (NaN fills up), all where ``free``.
        banned: per numeric column, numbers that do not fit.
        least: per numeric column, the least number that fits.
        level: index into ``LEVELS``.
        times, window: see ``Rule``.
        after: index of the rule that must have matched before, -1 for none.
        places: of the categorical columns.
        scales: of the numeric columns.
        names: of the rules.
        left_out: rules that need a column which the environment does not show, with that column.
    """

    tables: tuple[Bool[Array, "rule _"], ...]
    allowed: tuple[Float[Array, "rule _"], ...]
    free: tuple[Bool[Array, " rule"], ...]
    banned: tuple[Float[Array, "rule _"], ...]
    least: tuple[Float[Array, " rule"], ...]
    level: Int[Array, " rule"]
    times: Int[Array, " rule"]
    window: Int[Array, " rule"]
    after: Int[Array, " rule"]
    places: tuple[int, ...] = eqx.field(static=True)
    scales: tuple[NumberScale, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    left_out: tuple[tuple[str, str], ...] = eqx.field(static=True)

    @property
    def n(self) -> int:
        """Rules that can fire."""
        return len(self.names)

    def match(
        self, category: Int[Array, "env column"], numeric: Float[Array, "env feature"]
    ) -> Bool[Array, "env rule"]:
        """Which rules each event matches by itself, counts and sequences aside."""
        hit = jnp.ones((category.shape[0], self.n), bool)
        for place, table in zip(self.places, self.tables, strict=True):
            hit &= table[:, category[:, place]].T
        columns = zip(self.scales, self.allowed, self.free, self.banned, self.least, strict=True)
        for scale, allowed, free, banned, least in columns:
            raw = scale.raw(numeric[:, scale.place])[:, None]
            inside = free[None] | (raw[..., None] == allowed[None]).any(axis=-1)
            outside = (raw[..., None] == banned[None]).any(axis=-1)
            hit &= inside & ~outside & (raw >= least[None])
        return hit


class _Matches(eqx.Module):
    """Per process and rule: the step of the last match and the matches in a row."""

    last: Int[Array, "env entity rule"]
    count: Int[Array, "env entity rule"]


def compile_rules(vocabulary: Vocabulary, rules: Sequence[Rule] = RULES) -> CompiledRules:
    """Tables of the rules over an environment's ids; rules that need a column which is not there are left out.

    Raises:
        UsageError: a sequence rule names another rule that is not in the list before it.
    """
    shown = {*vocabulary.places, *vocabulary.scales}
    kept: list[Rule] = []
    left_out: list[tuple[str, str]] = []
    for rule in rules:
        needs = [FIELDS[name.split("|")[0]] for name in (*rule.selection, *rule.unless)]
        absent = [column for column in needs if column not in shown]
        if rule.after and rule.after not in {each.name for each in (*rules[: rules.index(rule)],)}:
            raise unknown_name(f"rule before {rule.name!r}:", rule.after, [each.name for each in rules])
        if not absent and rule.after and rule.after not in {each.name for each in kept}:
            absent = [dict(left_out)[rule.after]]
        if absent:
            left_out.append((rule.name, absent[0]))
        else:
            kept.append(rule)
    if not kept:
        raise UsageError("no rule can be used: the environment shows none of the columns that they read")
    names = [rule.name for rule in kept]
    columns = [name for name in vocabulary.places if name in vocabulary.values and name in FIELDS.values()]
    numbers = [name for name in vocabulary.scales if name in FIELDS.values()]
    return CompiledRules(
        tables=tuple(jnp.asarray(_table(kept, vocabulary.values[name], name)) for name in columns),
        allowed=tuple(_listed([_numbers(r.selection, name) for r in kept]) for name in numbers),
        free=tuple(jnp.asarray([not _numbers(r.selection, name) for r in kept]) for name in numbers),
        banned=tuple(_listed([_numbers(r.unless, name) for r in kept]) for name in numbers),
        least=tuple(jnp.asarray([_least(r, name) for r in kept], jnp.float32) for name in numbers),
        level=jnp.asarray([LEVELS.index(r.level) for r in kept], jnp.int32),
        times=jnp.asarray([r.times for r in kept], jnp.int32),
        window=jnp.asarray([r.window for r in kept], jnp.int32),
        after=jnp.asarray([names.index(r.after) if r.after else -1 for r in kept], jnp.int32),
        places=tuple(vocabulary.places[name] for name in columns),
        scales=tuple(vocabulary.scales[name] for name in numbers),
        names=tuple(names),
        left_out=tuple(left_out),
    )


def _table(rules: Sequence[Rule], values: Sequence[str], column: str) -> Bool[np.ndarray, "rule id"]:
    """Which values of a column fit each rule: all of its fields of that column, and none that excludes."""
    fields = [name for name, source in FIELDS.items() if source == column]

    def fits(rule: Rule, value: str) -> bool:
        return all(
            (name not in rule.selection or _like(name, value, rule.selection[name]))
            and not (name in rule.unless and _like(name, value, rule.unless[name]))
            for name in fields
        )

    return np.array([[fits(rule, value) for value in values] for rule in rules])


def _like(name: str, value: str, patterns: Sequence[str | int]) -> bool:
    text = program_of(value) if name in _COMMAND_LINES else value
    return any(fnmatchcase(text, str(pattern)) for pattern in patterns)


def _numbers(fields: Mapping[str, Sequence[str | int]], column: str) -> tuple[float, ...]:
    return tuple(float(n) for name, each in fields.items() if FIELDS.get(name) == column for n in each)


def _least(rule: Rule, column: str) -> float:
    limits = [
        float(patterns[0])
        for name, patterns in rule.selection.items()
        if name.endswith("|gte") and FIELDS[name.split("|")[0]] == column
    ]
    return max(limits, default=-np.inf)


def _listed(rows: Sequence[Sequence[float]]) -> Float[Array, "rule number"]:
    width = max(1, *(len(row) for row in rows))
    return jnp.asarray([[*row, *[np.nan] * (width - len(row))] for row in rows], jnp.float32)


def _begin(rules: CompiledRules, n_envs: int, n_entities: int) -> _Matches:
    shape = (n_envs, n_entities, rules.n)
    return _Matches(jnp.full(shape, _LONG_AGO, jnp.int32), jnp.zeros(shape, jnp.int32))


def _fire(rules: CompiledRules, matches: _Matches, observation: Any, t: Any) -> tuple[_Matches, Any]:
    """Which rules fire on the events of a step, with what is then remembered."""
    t = jnp.asarray(t, jnp.int32)
    last = recall(matches.last, observation.source, _LONG_AGO)
    count = recall(matches.count, observation.source, 0)
    hit = rules.match(observation.category, observation.numeric)
    recent = t - last <= rules.window[None]
    count = jnp.where(hit, jnp.where(recent, count, 0) + 1, count)
    since = t - last[:, jnp.maximum(rules.after, 0)]
    follows = (rules.after < 0)[None] | (since <= rules.window[None])
    fired = hit & (count >= rules.times[None]) & follows
    kept = _Matches(
        note(matches.last, observation.entity, jnp.where(hit, t, last)),
        note(matches.count, observation.entity, count),
    )
    return kept, fired


class RulePolicy(ScoredPolicy):
    """Answers with the severest verdict of the rules that fire.

    Attributes:
        rules: compiled.
        verdict: of each level, per environment.
        on: which rules are in use, per environment.
        n_entities: memory slots.
        ticket_open: place of that column.
    """

    rules: CompiledRules
    verdict: Int[Array, "env level"]
    on: Bool[Array, "env rule"]
    n_entities: int = eqx.field(static=True)
    ticket_open: int | None = eqx.field(static=True)

    def init(self, n_envs: int) -> Any:
        """No rule has matched."""
        return _begin(self.rules, n_envs, self.n_entities)

    def judge(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any, Any]:
        """The suspicion is the highest level that fires, 0 for none."""
        matches, fired = _fire(self.rules, carried, observation, t)
        fired &= self.on
        answer = jnp.where(fired, self.verdict[:, self.rules.level], int(Verdict.ALLOW)).max(axis=1)
        suspicion = jnp.where(fired, self.rules.level[None] + 1, 0).max(axis=1).astype(jnp.float32)
        return matches, without_repeats(answer, observation.numeric, self.ticket_open), suspicion


@eqx.filter_jit
def _hits(rules: CompiledRules, rows: Any, matches: _Matches) -> Bool[Array, "time env rule"]:
    def step(matches: _Matches, row: tuple[Any, Any]) -> tuple[_Matches, Any]:
        return _fire(rules, matches, row[0], row[1])

    return jax.lax.scan(step, matches, rows)[1]


def rule_hits(rules: CompiledRules, seen: Seen, n_entities: int) -> Bool[np.ndarray, "time env rule"]:
    """Which rules fire on events that were seen."""
    steps = jnp.arange(seen.label.shape[0])
    shown = jax.tree.map(jnp.asarray, _Shown(seen.category, seen.numeric, seen.entity, seen.source))
    hits = _hits(rules, (shown, steps), _begin(rules, seen.label.shape[1], n_entities))
    return np.asarray(hits) & seen.live[..., None]


class _Shown(eqx.Module):
    category: Any
    numeric: Any
    entity: Any
    source: Any


@dataclass(frozen=True, eq=False)
class RuleFamily:
    """Rules with their precision, to be tuned: the verdict of each level, and how precise a rule must be.

    Attributes:
        rules: compiled.
        precision: of each rule on the fitting episodes; NaN where it never fired.
        n_entities: memory slots.
        ticket_open: place of that column.
    """

    rules: CompiledRules
    precision: Float[np.ndarray, " rule"]
    n_entities: int
    ticket_open: int | None

    @property
    def space(self) -> tuple[Dimension, ...]:
        """Four verdicts, which are put in order, and the least precision of a rule in use."""
        verdicts = tuple(verdict.name.lower() for verdict in Verdict)
        return (
            *(Dimension(level, choices=verdicts) for level in LEVELS),
            Dimension("precision", 0.0, 0.9),
        )

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> RulePolicy:
        """A rule that never fired stays in use: nothing speaks against it."""
        verdict = [_in_order(each) for each in settings]
        on = [self._in_use(each) for each in settings]
        return RulePolicy(
            rules=self.rules,
            verdict=jnp.asarray(np.repeat(np.array(verdict, np.int32), n_envs, axis=0)),
            on=jnp.asarray(np.repeat(np.array(on), n_envs, axis=0)),
            n_entities=self.n_entities,
            ticket_open=self.ticket_open,
        )

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The verdict of each level, the rules switched off, and those that need a column that is not there."""
        answers = {
            level: verdict.name.lower() for level, verdict in zip(LEVELS, _in_order(settings), strict=True)
        }
        names = zip(self.rules.names, self._in_use(settings), strict=True)
        return {
            **answers,
            "switched_off": [name for name, on in names if not on],
            "left_out": [f"{name}: needs {column}" for name, column in self.rules.left_out],
        }

    def _in_use(self, settings: Mapping[str, Any]) -> Bool[np.ndarray, " rule"]:
        return ~(self.precision < settings["precision"])


def _in_order(settings: Mapping[str, Any]) -> list[Verdict]:
    """The verdicts of the levels: the mildest drawn for the lowest."""
    return sorted(Verdict[settings[level].upper()] for level in LEVELS)


def fit_rules(
    vocabulary: Vocabulary,
    n_entities: int,
    seen: Seen,
    weight: Float[np.ndarray, " env"],
    rules: Sequence[Rule] = RULES,
) -> RuleFamily:
    """Measures how precise each rule is on the fitting episodes."""
    compiled = compile_rules(vocabulary, rules)
    hits = rule_hits(compiled, seen, n_entities) * weight[None, :, None]
    known = (seen.label >= 0)[..., None]
    fired = (hits * known).sum(axis=(0, 1))
    right = (hits * (seen.label == 1)[..., None]).sum(axis=(0, 1))
    precision = np.divide(right, fired, out=np.full(compiled.n, np.nan), where=fired > 0)
    return RuleFamily(compiled, precision, n_entities, vocabulary.numbers.get("ticket_open"))

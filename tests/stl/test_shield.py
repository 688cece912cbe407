"""Shields: no violation that could have been prevented, no empty mask, and no verdict taken away in vain."""

import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stl.shield_oracle import ADVERSARIES, EFFECTS, Phi, brute_force, faults, player

from phalanx.errors import UsageError
from phalanx.stl import parse
from phalanx.stl.demands import EFFECTS as TOLD
from phalanx.stl.demands import Budget, demands_of
from phalanx.stl.literals import literal_of, possible_truths
from phalanx.stl.progress_automaton import automaton_of, n_windows
from phalanx.stl.shield import Shield, choose
from phalanx.stl.specs import parse_specs
from phalanx.types import Verdict

SUSPICION, PROTECTED = (0.1, 0.95), (0.0, 1.0)
BAN = Phi("ban", "protected > .5 -> severity < 2.5", 0)
CANONICAL = [
    BAN,
    Phi("deadline", "suspicion > .9 -> eventually[0,3] answered > .5", 1, ahead=3),
    Phi("budget", "sum(alerted, 10) <= 2", 2, back=10),
]
SCARCE = [  # alerts and blocks are both short: some deadline has to go, and the budgets must never
    Phi("alerts", "sum(alerted, 10) <= 2", 0, back=10),
    Phi("blocks", "sum(restricted, 10) <= 1", 1, back=10),
    Phi("deadline", "suspicion > .9 -> eventually[0,2] answered > .5", 2, ahead=2),
]
GAMES: dict[str, tuple[list[Phi], dict[str, tuple[float, ...]]]] = {
    "canonical": (CANONICAL, {"suspicion": SUSPICION, "protected": PROTECTED}),
    "scarce": (SCARCE, {"suspicion": SUSPICION}),
    "dwell": (
        [
            Phi("dwell", "threat > .5 -> always[0,2] severity > 2.5", 2, ahead=2),
            BAN,
            Phi("calm", "not (suspicion > .9) -> eventually[1,4] allowed > .5", 1, ahead=4),
        ],
        {"threat": (0.0, 1.0), "protected": PROTECTED, "suspicion": SUSPICION},
    ),
    "long": (
        [
            Phi("deadline", "suspicion > .9 -> eventually[0,5] restricted > .5", 0, ahead=5),
            Phi("budget", "sum(restricted, 1000) <= 20", 1, back=1000),
        ],
        {"suspicion": SUSPICION},
    ),
}


def built(specs: list[Phi]) -> Shield:
    return Shield([(phi.name, phi.formula, phi.priority) for phi in specs])


@pytest.mark.parametrize("adversary", ADVERSARIES)
@pytest.mark.parametrize("game", GAMES)
def test_nothing_preventable_happens_and_no_mask_is_empty(game: str, adversary: str) -> None:
    specs, values = GAMES[game]
    shield = built(specs)
    played = player(shield, values, adversary, steps=2000, lanes=30)(1)
    found = faults(specs, played)
    assert found["steps"] == 60_000
    assert found["empty"] == found["shieldable"] == found["unexplained"] == found["invented"] == 0
    first = np.asarray(shield.winning(shield.init()))
    assert first.any() and not played.violated[..., first].any()
    if game != "canonical":  # what cannot be kept is violated, so that the count above is no empty one
        assert found["violated"] > 0


def test_the_counts_see_a_policy_without_a_shield() -> None:
    class Open(Shield):
        def mask(self, state: Any, inputs: Any) -> Any:
            return jnp.ones_like(super().mask(state, inputs))

    specs, values = GAMES["canonical"]
    open_shield = Open([(phi.name, phi.formula, phi.priority) for phi in specs])
    found = faults(specs, player(open_shield, values, "random", steps=500, lanes=6)(1))
    assert found["shieldable"] > 100 and found["unexplained"] > 100 and found["invented"] == 0


def test_the_canonical_shield_keeps_everything() -> None:
    shield = built(CANONICAL)
    assert shield.names == ("ban", "deadline", "budget") and shield.apart == ()
    assert shield.together == (("ban",), ("deadline",), ("budget",))  # they can never contradict each other
    assert shield.table_states == (1, 4, 56)
    assert np.asarray(shield.winning(shield.init())).all()
    state = shield.init(1)
    hot = {"suspicion": np.ones(1), "protected": np.ones(1)}
    for _ in range(2):
        state, violated = shield.step(state, hot, jnp.ones(1, jnp.int32))
        assert not violated.any()
    assert shield.mask(state, hot).tolist() == [[True, False, True, False]]
    for _ in range(3):
        state, violated = shield.step(state, hot, jnp.zeros(1, jnp.int32))
        assert not violated.any()
    assert shield.mask(state, hot).tolist() == [[False, False, True, False]]
    assert shield.reasons(state, hot) == [
        {"ban": (Verdict.QUARANTINE,), "deadline": (Verdict.ALLOW,), "budget": (Verdict.ALERT,)}
    ]
    state, violated = shield.step(state, hot, jnp.zeros(1, jnp.int32))
    assert violated.tolist() == [[False, True, False]]


MODELS: dict[str, tuple[list[Phi], dict[str, tuple[float, ...]]]] = {
    "deadline and budget": (
        [
            Phi("deadline", "suspicion > .9 -> eventually[0,2] answered > .5", 0, 2),
            Phi("budget", "sum(answered, 4) <= 2", 1),
        ],
        {"suspicion": SUSPICION},
    ),
    "budget and deadline": (
        [
            Phi("budget", "sum(restricted, 5) <= 2", 0),
            Phi("deadline", "suspicion > .9 -> eventually[0,4] restricted > .5", 1, 4),
        ],
        {"suspicion": SUSPICION},
    ),
    "ban and dwell": (
        [BAN, Phi("dwell", "threat > .5 -> always[0,2] severity > 2.5", 1, 2)],
        {"threat": (0.0, 1.0), "protected": PROTECTED},
    ),
    "until": (
        [
            Phi("until", "threat > .5 -> (allowed > .5 until[0,3] quarantined > .5)", 0, 3),
            Phi("ban", "protected > .5 -> severity < 2.5", 1),
        ],
        {"threat": (0.0, 1.0), "protected": PROTECTED},
    ),
    "two budgets": (
        [
            Phi("alerts", "sum(alerted, 3) <= 1", 1),
            Phi("blocks", "sum(restricted, 3) <= 1", 0),
        ],
        {"suspicion": SUSPICION},
    ),
    "opposed": (
        [
            Phi("up", "suspicion > .9 -> eventually[0,2] always[0,1] severity > 1.5", 0, 3),
            Phi("down", "suspicion > .5 -> eventually[0,1] severity < 1.5", 1, 1),
        ],
        {"suspicion": (0.1, 0.7, 0.95)},
    ),
    "environment": (
        [Phi("calm", "suspicion > .9 -> next (suspicion < .9 or quarantined > .5)", 0, 1)],
        {"suspicion": SUSPICION},
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_masks_are_those_of_the_game_over_all_histories(model: str) -> None:
    specs, values = MODELS[model]
    found = brute_force(specs, values)
    assert found["only_by_shield"] == found["winning_differs"] == found["failures_differ"] == 0
    assert found["allowed_by_shield"] == found["allowed_by_game"] > found["pairs"] > 4


TRIGGER, ACT = (
    ("suspicion > .9", "protected > .5"),
    ("answered > .5", "severity > 2.5", "not restricted > .5"),
)


@st.composite
def phis(draw: Any, name: str, priority: int) -> Phi:
    act = draw(st.sampled_from(ACT))
    a, b = sorted(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))))
    shape = draw(st.sampled_from(["F", "G", "U", "not U", "X", "sum"]))
    other = draw(st.sampled_from(ACT))
    text = {
        "F": f"eventually[{a},{b}] {act}",
        "G": f"always[{a},{b}] {act}",
        "U": f"({other}) until[{a},{b}] ({act})",
        "not U": f"not (({other}) until[{a},{b}] ({act}))",
        "X": f"next ({act} or ({other} and {TRIGGER[1]}))",
    }
    if shape == "sum":
        return Phi(name, f"sum({draw(st.sampled_from(['alerted', 'answered']))}, {b + 1}) <= {a}", priority)
    return Phi(name, f"{draw(st.sampled_from(TRIGGER))} -> {text[shape]}", priority, max(b, 1))


@settings(max_examples=10)
@given(phis("one", 0), phis("other", 1))
def test_masks_are_those_of_random_games(one: Phi, other: Phi) -> None:
    found = brute_force([one, other], {"suspicion": SUSPICION, "protected": PROTECTED})
    assert found["only_by_shield"] == found["winning_differs"] == found["failures_differ"] == 0
    assert found["allowed_by_shield"] == found["allowed_by_game"]


def states_of(text: str) -> int:
    (demand,) = demands_of(parse(text), TOLD)
    automaton = automaton_of(demand, 100_000)
    assert automaton is not None
    return len(automaton.successor)


def test_automata_are_small() -> None:
    assert {name: tuple(map(float, each)) for name, each in EFFECTS.items()} == TOLD
    for d in (0, 1, 5, 40):
        assert states_of(f"always (x > 0 -> eventually[0,{d}] answered > .5)") == d + 1
        assert states_of(f"always (x > 0 -> always[0,{d}] severity > 2.5)") == d + 1
    assert states_of("always (x > 0 -> (allowed > .5 until[0,9] quarantined > .5))") == 10
    assert states_of("always (eventually[0,3] eventually[2,4] answered > .5)") == 8
    assert states_of("always (x > 0 or not (x > 0))") == states_of("always (sum(alerted, 2) <= 9)") == 1
    for window, most in itertools.product(range(7), range(4)):
        assert states_of(f"always (sum(alerted, {window}) <= {most})") == n_windows(Budget(2, window, most))


def test_truths_of_one_signal_are_told_apart_exactly() -> None:
    formula = parse("x > .5 and x > .9 and x < .5 and x == .7 and y > .5")
    found = [index for index in formula.needed if not formula.is_logic(index)]
    tops = [index for index in found if not any(index in formula.nodes[above].args for above in found)]
    literals = list(dict.fromkeys(literal_of(formula, index, False) for index in tops))
    assert len(literals) == 5 and len({literal.predicate for literal in literals}) == 4
    x = np.array([0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], np.float32)
    seen = {
        tuple(bool(each.holds(np, {"x": a, "y": b})) for each in literals)
        for a, b in itertools.product(x, (np.float32(0), np.float32(1)))
    }
    assert set(possible_truths(literals)) == seen


def test_a_budget_counts_alike_with_and_without_a_table() -> None:
    specs = [
        ("ban", "always (hot > .5 -> restricted > .5)", 0),
        ("budget", "always (sum(alerted, 8) <= 3)", 1),
    ]
    tabled, counted = Shield(specs), Shield(specs, most_states=20)
    assert tabled.table_states == (1, n_windows(Budget(2, 8, 3))) and counted.table_states == (1,)
    assert counted.apart == tabled.apart == ()
    key = jax.random.key(0)
    verdicts = jax.random.choice(key, 4, (300, 16), p=jnp.array([0.3, 0.5, 0.1, 0.1]))
    hot = jax.random.bernoulli(key, 0.2, (300, 16)).astype(jnp.float32)

    def told(shield: Shield) -> Any:
        def advance(state: Any, each: Any) -> Any:
            signals = {"hot": each[0]}
            mask = shield.mask(state, signals)
            state, violated = shield.step(state, signals, each[1])
            return state, (mask, violated)

        return jax.lax.scan(advance, shield.init(16), (hot, verdicts))[1]

    for one, other in zip(told(tabled), told(counted), strict=True):
        assert (one == other).all()
    assert told(tabled)[1][..., 1].any()


def test_lanes_start_anew_and_axes_are_free() -> None:
    shield = built(GAMES["long"][0])
    hot = {"suspicion": jnp.ones((2, 3))}
    fresh = shield.init((2, 3))
    state, _ = jax.jit(shield.step)(fresh, hot, jnp.full((2, 3), 2, jnp.int32))
    start = jnp.array([[True, False, False], [False, True, True]])
    reset = jax.jit(shield.reset)(state, start)
    for new, old, now in zip(*map(jax.tree.leaves, (fresh, state, reset)), strict=True):
        at = start.reshape(start.shape + (1,) * (now.ndim - 2))
        assert (now == jnp.where(at, new, old)).all() and (old != new).any() == (now.ndim == 3)
    mapped = jax.vmap(shield.mask)(state, hot)
    assert mapped.shape == (2, 3, 4) and (mapped == shield.mask(state, hot)).all()


def test_reasons_add_up_to_the_mask() -> None:
    shield = built(GAMES["dwell"][0])
    rng = np.random.default_rng(0)
    state = shield.init(50)
    for _ in range(6):
        inputs = {name: rng.uniform(size=50) for name in shield.signals}
        mask = np.asarray(shield.mask(state, inputs))
        for allowed, taken in zip(mask, shield.reasons(state, inputs), strict=True):
            gone = sorted(verdict for verdicts in taken.values() for verdict in verdicts)
            assert gone == np.flatnonzero(~allowed).tolist()
        state, _ = shield.step(state, inputs, rng.integers(0, 4, 50))


def test_the_wanted_verdict_is_kept_where_it_may_be() -> None:
    masks = np.array(list(itertools.product([False, True], repeat=4))[1:])
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=masks.shape).astype(np.float32)
    wanted[3], wanted[4], wanted[5] = -np.inf, np.nan, np.inf
    chosen = np.asarray(choose(jnp.asarray(masks), jnp.asarray(wanted)))
    for row, (mask, each) in enumerate(zip(masks, np.nan_to_num(wanted, nan=-np.inf), strict=True)):
        assert mask[chosen[row]] and each[chosen[row]] == each[mask].max()


def test_conjunctions_are_their_parts_and_any_object_is_a_spec() -> None:
    one, other = "a > .5 -> answered > .5", "b > .5 -> eventually[0,2] restricted > .5"
    whole = [
        SimpleNamespace(name="s", formula=parse(text), priority=0)
        for text in (f"always ({one}) and always ({other})", f"always (({one}) and ({other}))")
    ]
    shields = [Shield([each]) for each in whole]
    parts = Shield([("one", f"always ({one})"), ("other", f"always ({other})")])
    inputs = {"a": np.array([0.0, 1.0, 0.0, 1.0]), "b": np.array([0.0, 0.0, 1.0, 1.0])}
    state, states = parts.init(4), [each.init(4) for each in shields]
    for verdict in (1, 0, 1, 0):
        given = jnp.full(4, verdict, jnp.int32)
        for at, each in enumerate(shields):
            assert (each.mask(states[at], inputs) == parts.mask(state, inputs)).all()
            states[at], violated = each.step(states[at], inputs, given)
            assert (violated[:, 0] == parts.step(state, inputs, given)[1].any(-1)).all()
        state, _ = parts.step(state, inputs, given)


def test_nan_is_less_than_any_number() -> None:
    shield = Shield(
        [("low", "always (x < .5 -> answered > .5)", 0), ("high", "always (x > .5 -> allowed > .5)", 1)]
    )
    assert shield.mask(shield.init(), {"x": float("nan")}).tolist() == [False, True, True, True]


def test_what_cannot_be_looked_ahead_together_is_said() -> None:
    shield = built(GAMES["long"][0])
    assert shield.apart == (("deadline", "budget"),) and shield.together == (("deadline",),)
    assert shield.winning(shield.init()).tolist() == [True, False]
    scarce = built(SCARCE)
    assert scarce.together == (("alerts", "blocks", "deadline"),) and scarce.apart == ()
    tight = Shield([(phi.name, phi.formula, phi.priority) for phi in SCARCE], most_states=100)
    assert len(tight.together) == 3 and tight.apart == (("alerts", "blocks", "deadline"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x > 0 -> answered > 0", "column 1: .*keeps `always"),
        ("always (x > 0 -> eventually answered > 0)", "column 18: eventually has no bound"),
        ("always (x > 0 -> (allowed > .5 until answered > .5))", "column 32: until has no bound"),
        ("always (x > 0 -> always answered > .5)", "column 18: always has no bound"),
        ("always (once[0,3] (x > 0) -> answered > .5)", "column 9: once looks back"),
        ("always (prev answered > .5)", "column 9: prev looks back"),
        (
            "always (x > severity)",
            "column 11: this mixes 'severity'.* with 'x'",
        ),
        ("always ((x > 0) iff (answered > .5))", "mixes 'answered'.* with 'x'"),
        ("always ((eventually[0,1] answered > .5) iff (answered > .5))", "column 10: eventually below iff"),
        ("always (x > 0 -> sum(alerted, 3) <= 1)", "column 18: a shield takes a sum as a budget alone"),
        ("always (sum(severity, 3) <= 1)", "column 9: a budget counts .*: allowed, alerted"),
        ("always (sum(x, 3) <= 1)", "column 9: a budget counts"),
        ("always (sum(alerted, 3) <= -1)", "a number K from 0"),
        ("always (sum(alerted, 3) >= 1)", "column 9: a shield takes a sum as a budget alone"),
        ("always (age_since(answered > .5) < 3)", "age_since looks back"),
        ("always (x > 0 -> eventually[0,0.5] answered > .5)", "no multiple of the sampling period"),
        ("always (1 / severity > 2 or sqrt(severity - 2) > 0)", "has no value after verdict 0"),
        ("always (eventually[0,50] always[0,50] answered > .5)", "column 9: eventually makes more clauses"),
    ],
)
def test_what_no_shield_keeps_or_sees_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Shield([("s", text, 0)])


def test_other_faults_of_use() -> None:
    with pytest.raises(UsageError, match="names of their own"):
        Shield([("s", "always severity < 3", 0), ("s", "always severity < 2", 1)])
    with pytest.raises(UsageError, match="names of their own"):
        Shield([])
    with pytest.raises(UsageError, match="'s' takes more than 5 states"):
        Shield([("s", "always (x > 0 -> eventually[0,9] answered > .5)", 0)], most_states=5)
    many = " or ".join(f"x{at} > 0" for at in range(13))
    with pytest.raises(UsageError, match="more than 4096 combinations"):
        Shield([("s", f"always ({many})", 0)])
    shield = Shield([("s", "always (x > 0 -> answered > .5)", 0)])
    with pytest.raises(UsageError, match="needs the signal 'x'; inputs have: y"):
        shield.mask(shield.init(), {"y": 1.0})


def test_specifications_of_a_file_count_samples_and_errors_name_them() -> None:
    one, *_ = parse_specs("@spec one\n@period 2s\nalways (hot > .5 -> eventually[0,4] answered > .5)")
    with pytest.raises(UsageError, match="'one'.*@period has to be 1 s"):
        Shield([one])
    bad, *_ = parse_specs("@spec bad\nonce hot > .5", "limits.stl")
    with pytest.raises(UsageError, match=r"limits.stl: specification 'bad': line 2, column 1"):
        Shield([bad])


@pytest.mark.parametrize("bad", [7, 4, -1, [1, 7], np.array([3, -2]), 1.0, [0.5], "block", jnp.array(4)])
def test_what_is_no_verdict_is_refused(bad: Any) -> None:
    shield = built(CANONICAL)
    inputs = {"suspicion": np.ones(2), "protected": np.ones(2)}
    with pytest.raises(
        UsageError, match=r"verdict: expected whole numbers, 0 \(allow\), .*3 \(quarantine\); got"
    ):
        shield.step(shield.init(2), inputs, bad)


@pytest.mark.parametrize("given", [3, Verdict.BLOCK, [0, 1], np.array([2, 3], np.uint8), jnp.array([1, 1])])
def test_verdicts_of_any_kind_are_taken(given: Any) -> None:
    shield = built(CANONICAL)
    inputs = {"suspicion": np.ones(2), "protected": np.ones(2)}
    _, violated = shield.step(shield.init(2), inputs, given)
    told = np.broadcast_to(np.asarray(given), 2)
    assert violated[:, 0].tolist() == (told == 3).tolist()


def test_a_traced_verdict_beyond_all_counts_as_the_nearest() -> None:
    shield, rng = built(GAMES["long"][0]), np.random.default_rng(0)
    step = jax.jit(shield.step)
    state = shield.init(8)
    for _ in range(40):
        inputs = {"suspicion": rng.choice(SUSPICION, 8)}
        given = rng.integers(-3, 7, 8)
        after, violated = step(state, inputs, jnp.asarray(given))
        expected, told = shield.step(state, inputs, np.clip(given, 0, 3))
        assert (violated == told).all()
        assert all(
            (a == b).all() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(expected), strict=True)
        )
        state = after
    with pytest.raises(UsageError, match="got float32"):
        step(state, {"suspicion": np.ones(8)}, jnp.ones(8))

"""The league: baselines and trained committees in the same episodes of named scenarios.

Every policy of a scenario meets the same episodes and the same random draws (common random numbers). Baselines are
fitted on one stream of episodes and tuned on another, both apart from the test's, under an equal budget of trials; in a
held-out scenario they are those of the home scenario, for nothing may be chosen there. Fits are cheap but tuning plays
``trials * tune_episodes`` episodes, so baselines are fitted once (``fits=1``) and their one row of losses stands beside
each of a committee's seeds; with more fits each is a seed of its own.
"""

import dataclasses
import gc
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from phalanx.data.encoder import Encoder
from phalanx.envs.scenarios import SCENARIOS, Scenario, scenario
from phalanx.envs.simulator import Simulator
from phalanx.errors import RunError, UsageError
from phalanx.runtime.baselines import (
    BASELINES,
    FIXED,
    MATCHED,
    TUNED_BASELINES,
    Material,
    check_names,
    fixed_policy,
)
from phalanx.runtime.config import RunConfig
from phalanx.runtime.kept import load_committee
from phalanx.runtime.operating import CommitteeFamily
from phalanx.runtime.policies import Policy
from phalanx.runtime.standings import (
    Field,
    Outcome,
    best_baseline,
    gap_closed,
    mean_of_known,
    outcome_of,
    standings,
)
from phalanx.runtime.store import run_folders
from phalanx.runtime.strata import EpisodeSet, draw_episodes
from phalanx.runtime.tuning import Family, Tuned, tune

__all__ = [
    "League",
    "committee_families",
    "compare",
    "home_scenario",
    "named_runs",
    "tuned_committees",
    "tuned_families",
]

_LOG = logging.getLogger("phalanx")
_FIT, _TUNE, _TEST = 0, 1, 2
_HORIZON_SHARE = 0.5
_COMMITTEE_SHARE = 4


@dataclass(frozen=True)
class League:
    """Who meets whom, where, and how much is spent.

    Attributes:
        runs: folders that `phalanx train` wrote; the seeds of a folder are one policy's.
        policies: names of baselines; all unless given. The two ends of the scale are always measured.
        scenarios: names of scenarios.
        episodes: test episodes of a scenario (of each kind, where it has a base rate).
        trials: tuning budget of every baseline.
        fits: times that baselines are fitted and tuned anew.
        fit_episodes, tune_episodes: of each fit.
        poison: share of the events whose label is wrong in what baselines are fitted to; tuning and test see the truth.
        seed: of all episodes and trials.
    """

    runs: tuple[Path, ...] = ()
    policies: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ("office",)
    episodes: int = 64
    trials: int = 32
    fits: int = 1
    fit_episodes: int = 256
    tune_episodes: int = 64
    poison: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("episodes", "trials", "fits", "fit_episodes", "tune_episodes"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected 1 or more")
        if not 0.0 <= self.poison < 1.0:
            raise UsageError(f"--poison {self.poison}: expected a share from 0 to below 1")
        if not self.scenarios:
            raise UsageError("--scenario: expected at least one name")
        check_names(self.policies)
        for name in self.scenarios:
            scenario(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The baselines that take part, the two ends of the scale among them."""
        wanted = self.policies or BASELINES
        return tuple(name for name in BASELINES if name in wanted or name in ("always-allow", "oracle"))


Families = dict[str, list[tuple[Family, Tuned]]]


def compare(
    league: League,
    *,
    with_losses: bool = False,
    after: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Plays the league.

    Args:
        league: who, where and how much.
        with_losses: also the loss of every seed and episode.
        after: is told each scenario's name and its part of the result as soon as it has been played.

    Returns:
        ``scenarios``: by name, the rows of all policies and what the first committee gains; ``overall``: the mean
        normalised score of each policy over the scenarios that are open and over those held out.

    Raises:
        UsageError: a base rate that a scenario does not reach.
        RunError: a run that is missing, damaged, or of another environment.
    """
    key = jax.random.key(league.seed)
    runs = named_runs(league.runs)
    prepared: dict[str, Families] = {}
    scenarios = {}
    for name in league.scenarios:
        home = home_scenario(name)
        if home not in prepared:
            prepared[home] = tuned_committees(runs, scenario(home), league, key)
            prepared[home] |= tuned_families(scenario(home), league, key)
        scenarios[name] = _contest(name, home, league, key, runs, prepared[home], with_losses)
        _LOG.info("scenario %s played", name)
        if after is not None:
            after(name, scenarios[name])
        # Each compiled program maps memory of its own, and a process may hold some 65,000 maps: beyond them it dies.
        jax.clear_caches()
        gc.collect()
    settings = dataclasses.asdict(league)
    settings["runs"] = [str(run) for run in league.runs]
    return {"league": settings, "overall": _overall(scenarios), "scenarios": scenarios}


def home_scenario(name: str) -> str:
    """The scenario in which the baselines of a scenario are fitted and tuned: itself, or the first one that is open.

    Example:
        >>> home_scenario("office")
        'office'
    """
    if not scenario(name).held_out:
        return name
    return next(each for each, found in SCENARIOS.items() if not found.held_out)


def tuned_families(where: Scenario, league: League, key: PRNGKeyArray) -> Families:
    """Every baseline of the league that needs it, fitted and tuned in a scenario, fit by fit."""
    names = [name for name in league.names if name in TUNED_BASELINES]
    found: Families = {name: [] for name in names}
    if not names:
        return found
    env = Simulator(where.config)
    _LOG.info("fitting and tuning %s: some minutes each", ", ".join(names))
    told = Simulator(dataclasses.replace(where.config, poison=league.poison)) if league.poison else env
    for fit in range(league.fits):
        of_fit, of_tuning = (
            jax.random.fold_in(jax.random.fold_in(key, stream), fit) for stream in (_FIT, _TUNE)
        )
        material = Material(
            draw_episodes(told, of_fit, league.fit_episodes, where.base_rate), league.seed + fit
        )
        episodes = draw_episodes(env, of_tuning, league.tune_episodes, where.base_rate)
        for name in names:
            family = TUNED_BASELINES[name](material)
            best = tune(family, episodes, trials=league.trials, seed=league.seed + fit)
            _LOG.info("%s tuned: mean loss %.3f after %d trials", name, best.loss, len(best.losses))
            found[name].append((family, best))
    return found


def _contest(
    name: str,
    home: str,
    league: League,
    key: PRNGKeyArray,
    runs: dict[str, Path],
    families: Families,
    with_losses: bool,
) -> dict[str, Any]:
    """One scenario."""
    where = scenario(name)
    env = Simulator(where.config)
    test = draw_episodes(env, jax.random.fold_in(key, _TEST), league.episodes, where.base_rate)
    outcomes, notes = _play_all(env, test, league, runs, families)
    shared = Field(
        allow=outcomes["always-allow"].scores[0],
        oracle=outcomes["oracle"].scores[0],
        weight=test.weight,
        quiet=test.quiet,
        analysts=where.config.response.analysts,
        horizon_s=_HORIZON_SHARE
        * float(np.mean(outcomes["always-allow"].scores[0].duration_s, dtype=np.float64)),
    )
    result: dict[str, Any] = {
        "about": where.about,
        "base_rate": test.base_rate,
        "held_out": where.held_out,
        "tuned_on": home,
        "episodes": test.n,
        "horizon_s": shared.horizon_s,
        "policies": standings(outcomes, shared),
        "committee": next(iter(runs), None),
        "best_baseline": best_baseline(outcomes, shared),
        "notes": notes,
    }
    if runs and result["best_baseline"] is not None:
        result["gap_closed"] = gap_closed(
            outcomes[result["committee"]], outcomes[result["best_baseline"]], shared
        )
    if with_losses:
        result["loss_by_episode"] = {each: outcome.loss.tolist() for each, outcome in outcomes.items()}
        result["weight_by_episode"] = test.weight.tolist()
    return result


def _play_all(
    env: Simulator, test: EpisodeSet, league: League, runs: dict[str, Path], families: Families
) -> tuple[dict[str, Outcome], list[str]]:
    """Outcomes by name, committees first, and what could not take part."""
    outcomes: dict[str, Outcome] = {}
    notes = []
    for name in runs:
        outcomes[name] = _play_tuned(env, test, families[name], trained=True)
        _LOG.info("%s played", name)
    rates = np.mean(next(iter(outcomes.values())).rates, axis=0) if outcomes else None
    for name in league.names:
        if name in FIXED:
            outcomes[name] = _play(test, iter([fixed_policy(FIXED[name], test.n)]))
        elif name == MATCHED and rates is None:
            notes.append(f"{MATCHED} is left out: it answers as often as a committee, and there is none")
        elif name == MATCHED and rates is not None:
            outcomes[name] = _play(test, iter([fixed_policy((rates, rates), test.n)]))
        else:
            outcomes[name] = _play_tuned(env, test, families[name])
    return outcomes, notes


def _play(
    test: EpisodeSet,
    policies: Iterator[Policy],
    *,
    trained: bool = False,
    tuned: Sequence[Mapping[str, Any]] = (),
) -> Outcome:
    """The outcome of a policy's seeds, one after the other so that one course is in memory at a time."""
    parts = []
    for policy in policies:
        watched = test.play(policy, apply=False) if policy.scored else None
        parts.append(outcome_of([test.play(policy)], [watched], test.weight))
    return Outcome(
        scores=[part.scores[0] for part in parts],
        times=[part.times[0] for part in parts],
        pr_auc=[part.pr_auc[0] for part in parts],
        rates=[part.rates[0] for part in parts],
        trained=trained,
        tuned=tuned,
    )


def _play_tuned(
    env: Simulator, test: EpisodeSet, found: list[tuple[Family, Tuned]], *, trained: bool = False
) -> Outcome:
    here = [_moved(family, env) for family, _ in found]
    policies = (family.build([best.settings], test.n) for family, (_, best) in zip(here, found, strict=True))
    tuned = [
        {"settings": family.explain(best.settings), "loss": best.loss, "curve": list(best.curve)}
        for family, best in found
    ]
    return _play(test, policies, trained=trained, tuned=tuned)


def _moved(family: Any, env: Simulator) -> Any:
    """The family with as many memory slots as an environment has."""
    if not hasattr(family, "n_entities"):
        return family
    return dataclasses.replace(family, n_entities=env.spec.n_entities)


def named_runs(runs: tuple[Path, ...]) -> dict[str, Path]:
    """Runs by the names of their folders, or by their whole paths where names meet."""
    names = [run.resolve().name for run in runs]
    found = {
        str(run.resolve()) if names.count(name) > 1 or name in BASELINES else name: run
        for name, run in zip(names, runs, strict=True)
    }
    if len(found) < len(runs):
        raise UsageError(f"a run is named twice: {', '.join(map(str, runs))}")
    return found


def tuned_committees(
    runs: Mapping[str, Path], where: Scenario, league: League, key: PRNGKeyArray
) -> Families:
    """Each run's seeds at operating points found on the tuning episodes that baselines have.

    A committee has one number to tune: a quarter of the baselines' trials does, and of thresholds about as good the
    lowest is taken.
    """
    if not runs:
        return {}
    env = Simulator(where.config)
    own = jax.random.fold_in(jax.random.fold_in(key, _TUNE), 0)
    episodes = draw_episodes(env, own, league.tune_episodes, where.base_rate)
    trials = max(league.trials // _COMMITTEE_SHARE, 1)
    found: Families = {}
    for name, run in runs.items():
        families = list(committee_families(run, env))
        best = [
            tune(family, episodes, trials=trials, seed=league.seed, cautious="log_odds")
            for family in families
        ]
        _LOG.info("%s tuned: mean loss %.3f", name, float(np.mean([each.loss for each in best])))
        found[name] = list(zip(families, best, strict=True))
    return found


def committee_families(run: Path, env: Simulator) -> Iterator[CommitteeFamily]:
    """The kept committees of a run, seed by seed.

    Raises:
        RunError: no run, a damaged one, or one of another environment than the simulator as it is now.
    """
    for folder in run_folders(run):
        config = RunConfig.of(folder.config())
        if config.env != "simulator":
            raise RunError(
                f"{folder.path}: trained on --env {config.env}; scenarios are the simulator's. "
                "Train with --env simulator"
            )
        if folder.read_specs():
            raise RunError(
                f"{folder.path}: learned under specifications, whose margins its members are shown; these worlds show "
                "none. Measure it with phalanx evaluate"
            )
        if Encoder.from_dict(json.loads(folder.read_encoder())) != env.encoder:
            raise RunError(
                f"{folder.path}: its columns are not those that the simulator shows now. Train the run again"
            )
        committee, _ = load_committee(folder, config, env)
        yield CommitteeFamily(committee, config.network.memory_size, env.spec.n_entities)


def _overall(scenarios: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    names = dict.fromkeys(name for each in scenarios.values() for name in each["policies"])

    def mean(name: str, held_out: bool) -> float | None:
        found = [each for each in scenarios.values() if each["held_out"] == held_out]
        return mean_of_known([each["policies"].get(name, {}).get("score", {}).get("value") for each in found])

    return {name: {"open": mean(name, False), "held_out": mean(name, True)} for name in names}

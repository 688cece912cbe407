"""All settings of a run, as the command line shows them and as ``config.json`` keeps them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from phalanx.agents.credit import CREDIT_SCHEMES
from phalanx.agents.network import VIEWS, NetworkConfig
from phalanx.agents.normalizer import NORMALIZERS
from phalanx.agents.ppo import PPOConfig
from phalanx.committee.adversaries import TRAINING
from phalanx.committee.rule import faults_tolerated
from phalanx.envs.scenarios import SCENARIOS, scenario
from phalanx.errors import RunError, UsageError, unknown_name

__all__ = ["PRESETS", "RunConfig"]

EnvName = Literal["simulator", "replay", "stream"]
Normalizer = Literal["popart", "running", "batch", "none"]
Returns = Literal["gae", "monte_carlo"]
SplitName = Literal["auto", "time", "group", "stratified", "random"]
Credit = Literal["lookahead", "blend", "schedule", "half", "own", "committee", "difference", "dictator"]
Rollouts = Literal["apart", "together"]
Preset = Literal["default", "original", "ppo", "mappo"]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "original": {
        "rollouts": "together",
        "env": "stream",
        "split": "stratified",
        "split_seed": 42,
        "seed": 42,
        "members": 3,
        "normalizer": "running",
        "returns": "monte_carlo",
        "credit": "committee",
        "iterations": 300,
        "envs": 1,
        "steps": 2048,
        "gamma": 0.99,
        "lam": 0.95,
        "epochs": 10,
        "minibatches": 1,
        "learning_rate": 3e-4,
        "anneal": False,
        "clip": 0.2,
        "value_coef": 5.0,
        "entropy_coef": 0.05,
        "max_grad_norm": 0.5,
        "hidden": 256,
        "memory": 256,
        "cell": "lstm",
        "episode_events": 1000,
        "eval_every": 20,
    },
    "ppo": {"members": 1, "rollouts": "together", "credit": "committee", "shadow": 0.0},
    "mappo": {"members": 4, "rollouts": "together", "credit": "committee", "shadow": 0.0},
}


@dataclass(frozen=True)
class RunConfig:
    """Settings of a training run."""

    env: EnvName = "simulator"
    """Where the committee learns: the simulator, recorded events in a closed loop (replay), or recorded events whose
    answers have no consequence (stream)."""
    scenario: str = "office"
    """World of the simulator, by name; held-out ones are for measuring alone."""
    poison: float = 0.0
    """Share of the simulator's events whose truth is wrong in what is learned from; never in what is measured."""
    data: tuple[Path, ...] = ()
    """Recorded events for replay and stream: anything that `phalanx ingest` reads."""
    label: str | None = None
    """Column that holds the label; the format's own unless given."""
    map: Path | None = None
    """JSON or TOML file that maps the source's columns to the event table's."""
    features: tuple[str, ...] = ()
    """Exactly these source columns; all that carry information unless given."""
    preset: Preset = "default"
    """Starting values of all other settings: default, original (the notebook phalanx grew from, bugs included), ppo
    (one agent) or mappo (four that share one reward and whose critics are told the core state)."""
    split: SplitName = "auto"
    """How recorded events are split: auto takes time where events have times, else group, else stratified."""
    split_seed: int | None = None
    """Seed of the split; --seed unless given."""
    members: int = 4
    """Members of the committee."""
    faults: int | None = None
    """Liars or crashes to tolerate, members >= 3 faults + 1; as many as possible unless given."""
    liars: int = 0
    """Members that may be faulty at a time while the committee learns, at most as many as it tolerates: each episode
    draws how many (0 to so many), which, and of what kind. Members then learn together."""
    adversaries: tuple[str, ...] = ()
    """What liars do while the committee learns: random, flip, collude, silent, sleeper; any of them unless given. All
    others are kept for the test (docs/adversaries.md)."""
    views: tuple[str, ...] = ()
    """Sensor view of each member (full, process, file, network, identity); all full unless given."""
    normalizer: Normalizer = "popart"
    """Normalisation of value targets."""
    returns: Returns = "gae"
    """Value targets: lambda-returns, or Monte Carlo returns."""
    credit: Credit | None = None
    """What a member is paid for its vote, see docs/training.md; lookahead in the simulator and blend on recorded events
    unless given."""
    rollouts: Rollouts | None = None
    """Where members learn: apart, each from its own verdicts in --envs environments of its own (in the simulator unless
    given), or together, from the committee's verdicts in environments that all share."""
    shadow: float = 0.5
    """Share of the environments in which verdicts are logged and not applied, so that the committee also learns to
    detect what it would have prevented; in the first third of training alone with lookahead credit, none in stream, or
    for a credit scheme that cannot judge such votes."""
    reward_scale: float = 1.0
    """Factor on every reward."""
    specs: Path | None = None
    """What has to hold while the simulator's events are answered: a file of specifications (docs/stl.md), or the name
    of one that comes with phalanx, such as office. Members are shown how near they are to a violation."""
    multipliers: bool = True
    """Let each specification's violations cost, the more the longer they go on too often; without this flag they are
    only shown and counted."""
    iterations: int = 100
    """Rollouts and updates."""
    seeds: int = 1
    """Runs side by side in one program, with seeds --seed, --seed + 1, ..."""
    seed: int = 0
    """Seed of all randomness."""
    out: Path | None = None
    """Run folder; runs/ENV-SEED or the next free name unless given."""
    envs: int | None = None
    """Environments side by side; 64 in the simulator and 256 on recorded events unless given."""
    steps: int | None = None
    """Steps of a rollout in each environment; 128 in the simulator and 32 on recorded events unless given."""
    episode_events: int | None = None
    """Events until an episode is cut; the scenario's own in the simulator and 1,024 on recorded events unless given."""
    entities: int = 128
    """Processes that memory can tell apart at a time, on recorded events."""
    gamma: float = 0.99
    """Discount."""
    lam: float | None = None
    """Lambda of the lambda-return; 0.9 with lookahead credit and 0.95 otherwise unless given."""
    horizon: float = 5.0
    """Rollouts that the PopArt statistics remember."""
    average: float | None = None
    """About what share of the training so far the parameters that answer are the average of, where 0 takes the latest;
    0.1 with lookahead credit and 0 otherwise unless given."""
    hidden: int = 64
    """Width of encoder and heads."""
    memory: int = 64
    """Units of the recurrent cell."""
    cell: Literal["gru", "lstm", "none"] = "gru"
    """Recurrent cell."""
    start: Literal["uniform", "allow"] = "uniform"
    """First policy: all verdicts alike, or nearly always allow."""
    epochs: int | None = None
    """Passes over a rollout; 2 with lookahead credit and on recorded events, else 4 unless given."""
    minibatches: int = 16
    """Parts of a rollout, by environment."""
    learning_rate: float = 1e-3
    """Of Adam."""
    anneal: bool = True
    """Keep the learning rate as it is; without this flag it falls to a tenth over the run."""
    clip: float = 0.2
    """Of the probability ratio."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    entropy_coef: float | None = None
    """Weight of the entropy bonus; 0.015 with lookahead credit, else 0.05 in the simulator and 0.2 on recorded events
    unless given."""
    max_grad_norm: float = 0.5
    """Largest norm of a member's gradient, of actor and critic apart."""
    eval_every: int = 10
    """Iterations between validations."""
    checkpoint_every: int = 5
    """Iterations between checkpoints: what a kill can lose."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices and not (
                name in ("credit", "rollouts") and getattr(self, name) is None
            ):
                raise unknown_name(f"--{name.replace('_', '-')}", getattr(self, name), choices)
        positive = (
            "members",
            "iterations",
            "seeds",
            "envs",
            "steps",
            "entities",
            "eval_every",
            "checkpoint_every",
            "epochs",
            "minibatches",
            "hidden",
            "memory",
        )
        for name in positive:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected 1 or more")
        if self.episode_events is not None and self.episode_events < 1:
            raise UsageError(f"--episode-events {self.episode_events}: expected 1 or more")
        for name in ("gamma", "lam", "average"):
            if getattr(self, name) is not None and not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"--{name} {getattr(self, name)}: expected a number from 0 to 1")
        if scenario(self.scenario).held_out:
            known = ", ".join(name for name, each in SCENARIOS.items() if not each.held_out)
            raise UsageError(
                f"--scenario {self.scenario} is held out: nothing is trained in it. Choose one of {known}"
            )
        if not 0.0 <= self.poison < 1.0:
            raise UsageError(f"--poison {self.poison}: expected a share from 0 to below 1")
        if self.env != "simulator" and (self.poison or self.scenario != "office"):
            raise UsageError(
                f"--scenario and --poison are the simulator's; --env {self.env} reads recorded events"
            )
        if not 0.0 <= self.shadow < 1.0:
            raise UsageError(f"--shadow {self.shadow}: expected a share from 0 to below 1")
        for name in ("reward_scale", "learning_rate"):
            if not getattr(self, name) > 0.0:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} {getattr(self, name)}: expected a positive number")
        if self.horizon <= 1.0:
            raise UsageError(f"--horizon {self.horizon}: expected more than 1 rollout")
        if self.views and len(self.views) != self.members:
            raise UsageError(
                f"--views names {len(self.views)} views for {self.members} members; give one each"
            )
        for view in self.views:
            if view not in VIEWS:
                raise unknown_name("view", view, VIEWS)
        faults_tolerated(self.members, self.faults)
        if self.rollouts == "apart" and self.credit and CREDIT_SCHEMES[self.credit].about_others:
            raise UsageError(
                f"--credit {self.credit} is about the others' votes, which nobody hears with --rollouts apart; "
                "use --rollouts together"
            )
        self._check_liars()
        if self.specs and self.env != "simulator":
            raise UsageError(
                f"--specs with --env {self.env}: learning under specifications needs the simulator; measure a run "
                "on recorded events with phalanx evaluate --specs"
            )
        if not self.specs and not self.multipliers:
            raise UsageError("--no-multipliers without --specs: there is nothing that could have a price")
        if self.specs and self.multipliers and self.credit in _ONLY_IMITATING:
            raise UsageError(
                f"--specs with --credit {self.credit}: members then only imitate the best vote and heed no price; "
                "take another credit scheme, or --no-multipliers"
            )
        if self.env == "simulator" and self.data:
            raise UsageError("--data is for --env replay or stream; the simulator makes its own events")

    def _check_liars(self) -> None:
        if not self.liars and not self.adversaries:
            return
        if not 1 <= self.liars <= self.f:
            raise UsageError(
                f"--liars {self.liars}: {self.members} members learn beside 1 to {self.f} (the faults they tolerate); "
                "take more --members, or leave --liars and --adversaries out"
            )
        for name in self.adversaries:
            if name not in TRAINING:
                raise unknown_name("adversary to learn beside (others are held out)", name, TRAINING)
        if self.rollouts == "apart":
            raise UsageError(
                "--liars with --rollouts apart: there is no other member that could lie; use together"
            )
        if self.credit == "dictator" or self.is_original:
            raise UsageError(
                "--liars: neither --credit dictator nor --preset original can be learned beside liars"
            )

    @classmethod
    def preset_named(cls, name: str) -> "RunConfig":
        """The starting values of a preset.

        Example:
            >>> RunConfig.preset_named("original").members
            3
        """
        if name not in PRESETS:
            raise unknown_name("preset", name, PRESETS)
        return cls(preset=name, **PRESETS[name])  # type: ignore[arg-type]

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "RunConfig":
        """The settings that ``config.json`` holds.

        Raises:
            RunError: a setting that this version does not know.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(saved) - fields)
        if unknown:
            raise RunError(
                f"config.json holds {', '.join(unknown)}, unknown to this version; train anew or upgrade"
            )
        given = dict(saved)
        given.setdefault("rollouts", "together")  # as all learned before there was a choice
        for name in _PATHS:
            given[name] = None if given.get(name) is None else Path(given[name])
        given["data"] = tuple(Path(part) for part in given.get("data", ()))
        for name in ("features", "views", "adversaries"):
            given[name] = tuple(given.get(name, ()))
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """All values, as JSON can hold them."""
        values = dataclasses.asdict(self)
        values["data"] = [str(part) for part in self.data]
        for name in _PATHS:
            values[name] = None if values[name] is None else str(values[name])
        return values

    @property
    def resolved(self) -> "RunConfig":
        """These settings with all values filled in that depend on others.

        Neighbouring recorded events are much alike: many short stretches tell more than few long ones, and one of them
        is not gone over so often. A softer policy errs less where later events differ from those learned from.

        Example:
            >>> RunConfig(env="stream").resolved.entropy_coef, RunConfig().resolved.entropy_coef
            (0.2, 0.015)
        """
        values = {"split_seed": self.seed, **_BY_ENV["simulator" if self.env == "simulator" else "recorded"]}
        scheme = CREDIT_SCHEMES[self.credit or values["credit"]]
        values |= _BY_CREDIT["ahead" if scheme.lookahead else "back"]
        if scheme.about_others or self.liars:
            values["rollouts"] = "together"
        if self.env == "simulator":
            values["episode_events"] = scenario(self.scenario).config.episode_events
        missing = {name: value for name, value in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)  # type: ignore[arg-type]

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that decide what the rows are: the data, and the map of its columns."""
        return (*self.data, *([self.map] if self.map else []))

    @property
    def episode_limit(self) -> int:
        """Events until an episode is cut."""
        own = self.resolved
        assert own.episode_events
        return own.episode_events

    @property
    def rollout_steps(self) -> int:
        """Environment steps of a rollout, of all members where they learn apart."""
        own = self.resolved
        assert own.envs and own.steps
        return own.envs * own.steps * (own.members if own.rollouts == "apart" else 1)

    @property
    def rollout_agent_steps(self) -> int:
        """Members' parts in the environment steps of a rollout: of one member each where they learn apart."""
        return self.rollout_steps * (1 if self.resolved.rollouts == "apart" else self.members)

    @property
    def is_original(self) -> bool:
        """Whether the notebook's own task, network and update are trained (see ``runtime.original``)."""
        return self.preset == "original" and self.env == "stream"

    @property
    def f(self) -> int:
        """Faults tolerated."""
        return faults_tolerated(self.members, self.faults)

    @property
    def member_views(self) -> tuple[str, ...]:
        """The sensor view of each member."""
        return self.views or ("full",) * self.members

    @property
    def network(self) -> NetworkConfig:
        """Sizes of a member's network."""
        return NetworkConfig(hidden=self.hidden, memory=self.memory, cell=self.cell, start=self.start)

    @property
    def ppo(self) -> PPOConfig:
        """Settings of the update."""
        own = self.resolved
        assert own.epochs is not None and own.entropy_coef is not None
        return PPOConfig(
            epochs=own.epochs,
            minibatches=self.minibatches,
            learning_rate=self.learning_rate,
            anneal=self.anneal,
            clip=self.clip,
            value_coef=self.value_coef,
            entropy_coef=own.entropy_coef,
            max_grad_norm=self.max_grad_norm,
        )


_BY_ENV: dict[str, dict[str, Any]] = {
    "simulator": {
        "rollouts": "apart", "credit": "lookahead", "envs": 64, "steps": 128, "epochs": 4, "entropy_coef": 0.05,
    },
    "recorded": {
        "rollouts": "together", "credit": "blend", "envs": 256, "steps": 32, "episode_events": 1024, "epochs": 2,
        "entropy_coef": 0.2,
    },
}  # fmt: skip
"""Defaults that depend on where events come from."""

_BY_CREDIT: dict[str, dict[str, Any]] = {
    "ahead": {"lam": 0.9, "entropy_coef": 0.015, "epochs": 2, "average": 0.1}, "back": {"lam": 0.95, "average": 0.0},
}  # fmt: skip
"""Defaults that depend on whether the credit looks ahead."""

_ONLY_IMITATING = ("own", "difference")

_PATHS = ("out", "map", "specs")

_CHOICES: dict[str, Any] = {
    "env": get_args(EnvName),
    "preset": tuple(PRESETS),
    "split": get_args(SplitName),
    "normalizer": tuple(NORMALIZERS),
    "returns": get_args(Returns),
    "credit": tuple(CREDIT_SCHEMES),
    "rollouts": get_args(Rollouts),
}

"""Signal Temporal Logic: formulas from text, and how far a trace or a stream is from violating them.

What runs in JAX is not imported with the package: ``stl.jitted``, ``stl.smooth`` and ``stl.shield``.
"""

from phalanx.stl.conformal import Calibration, calibrate
from phalanx.stl.diagnosis import Diagnosis, diagnose
from phalanx.stl.event_monitor import EventMonitor, EventVerdict
from phalanx.stl.event_time import robustness_at
from phalanx.stl.fleet import Fleet, FleetVerdicts
from phalanx.stl.formula import Formula
from phalanx.stl.interval import robustness_bounds
from phalanx.stl.monitor import Monitor, Verdict
from phalanx.stl.offline import robustness
from phalanx.stl.parser import parse
from phalanx.stl.profile import PROFILE
from phalanx.stl.scaled import normalised
from phalanx.stl.specs import Spec, parse_specs, read_specs
from phalanx.stl.streams import Counts, EventStreams, Reject

__all__ = [
    "PROFILE",
    "Calibration",
    "Counts",
    "Diagnosis",
    "EventMonitor",
    "EventStreams",
    "EventVerdict",
    "Fleet",
    "FleetVerdicts",
    "Formula",
    "Monitor",
    "Reject",
    "Spec",
    "Verdict",
    "calibrate",
    "diagnose",
    "normalised",
    "parse",
    "parse_specs",
    "read_specs",
    "robustness",
    "robustness_at",
    "robustness_bounds",
]

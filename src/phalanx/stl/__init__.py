"""Signal Temporal Logic: formulas from text, and how far a trace or a stream is from violating them."""

from phalanx.stl.diagnosis import Diagnosis, diagnose
from phalanx.stl.formula import Formula
from phalanx.stl.monitor import Monitor, Verdict
from phalanx.stl.offline import robustness
from phalanx.stl.parser import parse

__all__ = ["Diagnosis", "Formula", "Monitor", "Verdict", "diagnose", "parse", "robustness"]

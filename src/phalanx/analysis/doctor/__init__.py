"""The doctor: what is wrong with a task or a training run, by what evidence, from what cause, and what to do."""

from phalanx.analysis.doctor.examination import examine_task
from phalanx.analysis.doctor.finding import SYMPTOMS, Finding, diagnosis
from phalanx.analysis.doctor.run import examine_run
from phalanx.analysis.doctor.task import DataTask

__all__ = ["SYMPTOMS", "DataTask", "Finding", "diagnosis", "examine_run", "examine_task"]

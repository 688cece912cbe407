"""The one place that metrics are imported from: what it names is what the modules of the concepts define."""

import importlib

import pytest

from phalanx.analysis import metrics

CONCEPTS = ("checks", "critic", "detection", "diversity", "response")


@pytest.mark.parametrize("concept", CONCEPTS[1:])
def test_every_public_name_of_a_concept_is_there(concept: str) -> None:
    module = importlib.import_module(f"phalanx.analysis.{concept}")
    for name in module.__all__:
        assert getattr(metrics, name) is getattr(module, name)


def test_it_names_nothing_else() -> None:
    modules = [importlib.import_module(f"phalanx.analysis.{concept}") for concept in CONCEPTS]
    assert set(metrics.__all__) <= {name for module in modules for name in module.__all__}

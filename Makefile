# phalanx: everything runs in .venv, which the first target that needs it creates from pinned requirements.
# Needed beforehand: Python 3.11 or newer and make.

VENV := .venv
STAMP := $(VENV)/.installed
BENCHMARKS := arena_speed speed causality credit reward_scale simulator
CANDIDATES := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

.PHONY: help setup demo test slow bench names catalogue clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(STAMP)  ## create .venv from pinned requirements, phalanx in it

demo: $(STAMP)  ## train a small committee, evaluate it, write its report
	scripts/demo

test: $(STAMP)  ## ruff, pyright and the tests, as CI and pre-commit run them
	scripts/check

slow: $(STAMP)  ## the suites that take longer
	$(VENV)/bin/pytest -m slow

bench: $(STAMP)  ## the benchmarks that need no runs and no data, compile time apart from run time
	@for name in $(BENCHMARKS); do \
		echo "== $$name"; $(VENV)/bin/python benchmarks/$$name.py || exit 1; \
	done

names: $(STAMP)  ## write tests/public_names.json anew after a wanted change of a public name
	$(VENV)/bin/python tests/test_public_names.py

catalogue: $(STAMP)  ## write docs/catalogue.md anew after a change of the catalogue or the scenarios
	$(VENV)/bin/python -m phalanx.envs.sim_docs > docs/catalogue.md

clean:  ## delete .venv and every cache
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis build dist

$(STAMP): requirements/base.txt requirements/dev.txt pyproject.toml
	@scripts/setup $(VENV) $(CANDIDATES)
	@touch $@

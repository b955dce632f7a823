# make lab        read and run the series in JupyterLab
# make run        run the finished prototype through `flwr run`
# make test       lint, unit tests, every notebook, the state of the notebooks
# make notebooks  re-execute the notebooks in place
# make budget     measure the notebooks and write the table in README.md
# make links      write badges, links and install cells from pyproject.toml
# make bench      run the benchmarks (OTHERS=path: see tests/benchmarks/vectorized.py)
#
# All of them make .venv first: Python 3.11 or newer is all that is needed. byzfl, with
# which tests compare, comes without its dependencies: it asks for a torchvision, whose
# build on PyPI does not go with the torch for processors.

PYTHON ?= python3

export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export RAY_USAGE_STATS_ENABLED = 0
export FLWR_HOME = $(CURDIR)/.venv/flwr

.PHONY: lab run test notebooks budget links bench

lab: .venv/made
	.venv/bin/jupyter lab notebooks/00_start_here.ipynb

run: .venv/made
	.venv/bin/python tests/run_app.py

test: .venv/made
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pytest --nbval-lax --nbval-current-env notebooks tests

notebooks: .venv/made
	.venv/bin/python tests/notebooks.py execute

budget: .venv/made
	.venv/bin/python tests/notebooks.py budget

links: .venv/made
	.venv/bin/python tests/links.py

bench: .venv/made
	.venv/bin/pytest --benchmark-only --benchmark-disable-gc --benchmark-columns=min,median,max tests/benchmarks
	.venv/bin/python tests/benchmarks/vectorized.py $(if $(OTHERS),--others $(OTHERS))

.venv/made: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[lab,test]'
	.venv/bin/pip install --quiet --constraint constraints.txt --no-deps byzfl
	touch $@

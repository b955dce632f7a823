# make lab        read and run the series in JupyterLab
# make run        run the finished prototype through `flwr run`
# make deploy     run it on Flower's deployment runtime: a SuperLink and 4 SuperNodes
# make peers      run eight peers without a server; two die, one comes back
# make test       lint, unit tests, every notebook, the state of the notebooks
# make notebooks  re-execute the notebooks in place
# make portable   run them as on older processors: the compared outputs must hold
# make budget     measure the notebooks; fails over budget; writes README.md's table
# make colab      run the notebooks with Colab's versions (OTHER=python3.13)
# make binder     run them as on Binder, within 2 GiB and one processor (OTHER=python3.12)
# make assignment build an nbgrader course of the exercises in out/course
# make site       render the series as pages in out/site/html, offline
# make links      write badges, links and install cells from pyproject.toml
# make house      draw the house, its table in README.md and the page of the API
# make bench      run the benchmarks (OTHERS=path: see tests/benchmarks/vectorized.py)
#
# All of them make .venv first: Python 3.11 or newer is all that is needed. For other
# versions than the tested ones: make CONSTRAINTS=file-of-pins test. byzfl, with
# which tests compare, comes without its dependencies: it asks for a torchvision, whose
# build on PyPI does not go with the torch for processors.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
JOBS ?= 2

export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export RAY_USAGE_STATS_ENABLED = 0
export FLWR_HOME = $(CURDIR)/.venv/flwr

.PHONY: lab run peers deploy test notebooks portable budget colab binder assignment site links house bench

lab: .venv/made
	.venv/bin/jupyter lab notebooks/00_start_here.ipynb

run: .venv/made
	.venv/bin/python tests/run_app.py

deploy: .venv/made
	.venv/bin/python tests/run_app.py --deploy

peers: .venv/made
	.venv/bin/python tests/run_peers.py

test: .venv/made
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports
	.venv/bin/mypy
	.venv/bin/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20 --nbval-lax --nbval-current-env notebooks tests

notebooks: .venv/made
	.venv/bin/python tests/notebooks.py execute

portable: .venv/made
	.venv/bin/python tests/portable.py

budget: .venv/made
	.venv/bin/python tests/notebooks.py budget

colab: .venv/made
	.venv/bin/python tests/environments.py colab --python $(OTHER)

binder: .venv/made
	.venv/bin/python tests/environments.py binder --python $(OTHER)

assignment: .venv/made
	.venv/bin/python tests/assignments.py

site: .venv/made
	.venv/bin/python tests/docstrings.py
	rm -rf out/site notebooks/site/api
	.venv/bin/sphinx-build -q -W --keep-going -c notebooks/site -d out/site/doctrees . out/site/html

links: .venv/made
	.venv/bin/python tests/links.py

house: .venv/made
	.venv/bin/python tests/house.py

bench: .venv/made
	.venv/bin/pytest --benchmark-only --benchmark-disable-gc --benchmark-columns=min,median,max tests/benchmarks
	.venv/bin/python tests/benchmarks/peers.py
	.venv/bin/python tests/benchmarks/vectorized.py $(if $(OTHERS),--others $(OTHERS))

.venv/made: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[lab,site,test]'
	.venv/bin/pip install --quiet --constraint $(CONSTRAINTS) --no-deps byzfl
	touch $@

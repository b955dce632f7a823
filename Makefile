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
# make assignment the students' copy in out/student, an nbgrader course in out/course
# make site       render the series as pages in out/site/html, offline; those without
#                 Flower and torch also run there, in a browser, with a network
# make pins       ask the registry whether constraints.txt can be installed anywhere
# make slides     a lecture's slides, and a day's: one page a notebook, in out/slides
# make links      write badges, links and install cells from pyproject.toml
# make house      draw the house, its table and the page of the API
# make bench      measure, and write notebooks/speed.md (DECENT=python FLUKE=python)
#
# Each installs into .venv what it needs, and no more. Python 3.11 or newer is all that
# is needed before. For other versions than the tested ones: make CONSTRAINTS=pins test.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
# Where PyTorch comes from: the build for processors has a tenth of the size of that for
# NVIDIA cards, which PyPI has for Linux.
TORCH ?= https://download.pytorch.org/whl/cpu

export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export RAY_USAGE_STATS_ENABLED = 0
export FLWR_HOME = $(CURDIR)/.venv/flwr

.PHONY: lab run peers deploy test notebooks portable budget colab binder assignment site slides pins links house bench

lab: .venv/lab
	@.venv/bin/jupyter trust notebooks/*.ipynb notebooks/teaching/*.ipynb >/dev/null  # or their players do not play
	.venv/bin/jupyter lab --allow-root --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

run: .venv/lab
	.venv/bin/python tests/run_app.py

deploy: .venv/lab
	.venv/bin/python tests/run_app.py --deploy

peers: .venv/lab
	.venv/bin/python tests/run_peers.py

test: .venv/test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports
	.venv/bin/mypy
	.venv/bin/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20 --nbval-lax --nbval-current-env notebooks tests

notebooks: .venv/test
	.venv/bin/python tests/notebooks.py execute
	.venv/bin/python tests/moving.py

portable: .venv/test
	.venv/bin/python tests/portable.py

budget: .venv/test
	.venv/bin/python tests/notebooks.py budget

colab: .venv/lab
	.venv/bin/python tests/environments.py colab --python $(OTHER)

binder: .venv/test
	.venv/bin/python tests/environments.py binder --python $(OTHER)

assignment: .venv/test
	.venv/bin/python tests/assignments.py

site: .venv/site
	.venv/bin/python tests/docstrings.py
	rm -rf out/site notebooks/site/api
	.venv/bin/sphinx-build -q -W --keep-going -c notebooks/site -d out/site/doctrees . out/site/html
	.venv/bin/python tests/lite.py out/site/html/lite

# On Linux, macOS and all stated Pythons, from wheels alone; 3.11.2 is Debian 12's.
pins: .venv/test
	for python in 3.11.2 3.12 3.13 3.14; do \
	for system in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do \
	echo $$python $$system; MACOSX_DEPLOYMENT_TARGET=14.0 .venv/bin/uv pip compile --quiet \
	--python-version $$python --python-platform $$system --only-binary :all: \
	--constraint constraints.txt --all-extras pyproject.toml >/dev/null || exit 1; \
	done; done

slides: .venv/test
	.venv/bin/python tests/slides.py

links: .venv/test
	.venv/bin/python tests/links.py

house: .venv/test
	.venv/bin/python tests/house.py

bench: .venv/test
	.venv/bin/pytest --benchmark-only --benchmark-disable-gc --benchmark-columns=min,median,max tests/benchmarks
	.venv/bin/python tests/benchmarks/peers.py
	.venv/bin/python tests/benchmarks/engines.py $(if $(DECENT),--decent $(DECENT)) $(if $(FLUKE),--fluke $(FLUKE))

.venv/lab: EXTRAS = lab
.venv/site: EXTRAS = site
.venv/test: EXTRAS = lab,site,test
# byzfl, with which tests compare, comes without its dependencies: it asks for a
# torchvision, whose build on PyPI does not go with the torch for processors.
.venv/test: BYZFL = byzfl

.venv/lab .venv/site .venv/test: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "Installing into .venv: 2 to 3 GB on disk, some 2 to 10 minutes, once ..."
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv  # another Python would break it
	@.venv/bin/pip install --constraint $(CONSTRAINTS) --no-deps --retries 1 --index-url $(TORCH) torch \
	|| echo "$(TORCH) has no PyTorch for us: PyPI's follows, on Linux 7 GB"
	.venv/bin/pip install --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	$(if $(BYZFL),.venv/bin/pip install --constraint $(CONSTRAINTS) --no-deps $(BYZFL))
	touch $@

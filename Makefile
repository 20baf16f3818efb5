# `make` alone lists the targets and variables.

#? CONFIG      more YAML files for the run; later ones win: CONFIG="a.yaml b.yaml"
#? ARGS        more options for the command: ARGS="--trainer.max_epochs 1"
#? DATA        dataset folder (default: data/world, a synthetic world that is made if it is missing)
#? CKPT        checkpoint folder to start or predict from
#? OUT         output folder of predict and export (default: in a run's folder), score, compare (default: runs/compare)
#? PACKAGE     folder that export wrote, for serve and score
#? REQUESTS    file or folder of raw candidate lists to score, Parquet or CSV
#? QUICK       1: compare all systems with one seed each and without a search; bench: try it out; takes minutes
#? WALL        1: bench measures two threads by wall clock, on an idle machine
#? NODES       nodes of a *-multinode job (default: 2)
#? GPUS        GPUs per node, one rank per GPU (default: 8); 0: one rank on the CPU
#? TASKS       jobs of compare-multinode, which has no NODES (default: 8, with GPUS=1)
#? PARTITION   SLURM partition; defaults of PARTITION, TIME and SBATCH are set in slurm/site.env
#? TIME        time limit of the job: 1-00:00:00; a job that reaches it is requeued and continues
#? SBATCH      more options for sbatch: SBATCH="--qos=low --exclude=n7"
#? RESUME      folder of a run that train-multinode continues, on any number of nodes
#? DRY_RUN     1: *-multinode targets check and show the job, but do not submit it
#? WORLD_ARGS  options of the synthetic world when it is made (another place: make data DATA=): `ccn data world --help`
#? FLAVOUR     cpu or cuda; the first install looks for a GPU, later installs keep its choice
#? INDEX       additional wheel index; the CPU wheel index named on PyTorch's install page saves gigabytes
#? TRIO        versions of torch, torchrec and fbgemm by torch's version: 2.14 (default) or 2.11
#? PYTHON      the Python (3.11 to 3.13) to make the virtual environment from
#? VENV        the virtual environment (default: .venv)

.DEFAULT_GOAL := help
.PHONY: help install data train finetune predict compare export serve score train-multinode finetune-multinode predict-multinode \
	compare-multinode simulate plan bench doctor docs test test-slow test-gpu test-slurm test-spark lint

VENV ?= .venv
CCN := $(VENV)/bin/ccn
comma := ,
# --quiet twice: errors only
PIP = $(VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-warn-conflicts \
	$(if $(INDEX),--extra-index-url $(INDEX))

# It runs Python, because a pyenv shim may exist without a Python behind it.
PYTHON_FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c '$(PYTHON_FITS)' 2>/dev/null && break; done; echo $$python)

# The flavour of a finished install is kept: a cluster's login node has no GPU but must not rebuild what its nodes use.
INSTALLED := $(patsubst $(VENV)/installed-%,%,$(wildcard $(VENV)/installed-cpu $(VENV)/installed-cuda))
ifndef FLAVOUR
FLAVOUR := $(or $(INSTALLED),$(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo cuda || echo cpu))
endif
ifeq ($(filter $(FLAVOUR),cpu cuda),)
$(error FLAVOUR=$(FLAVOUR): must be cpu or cuda)
endif
# The trio of TRIO: what pip installs with its dependencies, and torchrec, which it installs without them (see
# pyproject.toml, which has the default's versions).
TRIO ?= 2.14
FBGEMM := fbgemm-gpu$(if $(filter cpu,$(FLAVOUR)),-cpu)
ifeq ($(TRIO),2.14)
REQUIREMENTS = --editable '.[$(FLAVOUR)$(1)]'
TORCHREC := $(shell sed -n 's/^torchrec = "\(.*\)"/\1/p' pyproject.toml)
else ifeq ($(TRIO),2.11)
REQUIREMENTS = --editable '.$(if $(1),[dev])' torch==2.11.0 $(FBGEMM)==1.6.0
TORCHREC := 1.6.1
else
$(error TRIO=$(TRIO): must be 2.14 or 2.11)
endif

FOLDER := $(or $(DATA),data/world)
CONFIGS := $(foreach file,$(CONFIG),--config $(file))

help:  ## list the targets and variables
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 22
	@echo
	@sed -n 's/^#? /  /p' Makefile

install: $(VENV)/installed-$(FLAVOUR)  ## make .venv with the wheels for this machine

# The stamp is removed first and made again last, so an install that was interrupted, or of the other flavour, starts from
# scratch. (fbgemm's two flavours unpack into the same folder, so one cannot be installed over the other.)
$(VENV)/installed-$(FLAVOUR): pyproject.toml | own-venv
	@test -f $@ || { \
		$(PYTHON) -c '$(PYTHON_FITS)' 2>/dev/null || { \
			echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
			exit 1; }; \
		$(PYTHON) -m venv $$(test -f $(VENV)/pyvenv.cfg && echo --clear) $(VENV); }
	@rm -f $@
	@echo "installing lightning_ccn ($(FLAVOUR)) into $(VENV): this takes a few minutes the first time"
	@$(PIP) $(call REQUIREMENTS)
	@$(PIP) --no-deps torchrec==$(TORCHREC)
	@touch $@

# An environment holds one checkout's lightning_ccn, by its path, and pip records whose. Two checkouts would run, and take
# from each other, whichever code was installed last.
RECORD = $(VENV)/lib/python3*/site-packages/lightning_ccn-*.dist-info/direct_url.json
OWNER := import sys; from json import load; from urllib.parse import unquote; \
	print(unquote(load(sys.stdin)["url"]).removeprefix("file://"))
own-venv:
	@owner=$$(cat $(RECORD) 2>/dev/null | $(VENV)/bin/python -ISc '$(OWNER)' 2>/dev/null); \
	test -z "$$owner" || test "$$owner" -ef . || { \
		echo "VENV=$(VENV): holds lightning_ccn of $$owner; give this checkout its own: make VENV=another/folder" >&2; exit 2; }

$(VENV)/installed-dev: $(VENV)/installed-$(FLAVOUR)
	@$(PIP) $(call REQUIREMENTS,$(comma)dev)
	@touch $@

need-%:
	@test -n "$($*)" || { echo "$*= is missing; make help says what it is" >&2; exit 2; }

# A synthetic world is made at the default place, or where `make data DATA=` asks for one by name: a misspelt DATA= of
# another target must not be trained on made-up clicks.
MADE_UP := $(or $(filter data,$(MAKECMDGOALS)),$(if $(filter-out data/world,$(FOLDER)),,default))

data: install  ## make the synthetic promotion world, unless the dataset folder exists
	@case "$(FOLDER)" in *://*) test -n "$(filter data,$(MAKECMDGOALS))" || exit 0; \
		echo "DATA=$(FOLDER): is in an object store; make the world on a disk, and upload it" >&2; exit 2;; esac; \
	if test -f "$(FOLDER)/stats.json"; then echo "$(FOLDER): exists already"; \
	elif test -f "$(FOLDER)/schema.yaml"; then echo "$(FOLDER): has no stats.json; check the data, and write it:" \
		"$(CCN) data check '$(FOLDER)' --write_stats true" >&2; exit 2; \
	elif test -z "$(MADE_UP)" && test -e "$(FOLDER)"; then echo "DATA=$(FOLDER): has no schema.yaml, so it is not a" \
		"dataset folder; docs/data.md says what is one" >&2; exit 2; \
	elif test -z "$(MADE_UP)"; then echo "DATA=$(FOLDER): no such folder; correct it, or ask for a synthetic world" \
		"there: make data DATA='$(FOLDER)'" >&2; exit 2; \
	else $(CCN) data world "$(FOLDER)" $(WORLD_ARGS); fi

DEFAULT = --config conf/experiment/default.yaml --data.folder "$(FOLDER)"

train: data  ## train and test CCN: CONFIG= DATA= ARGS=
	$(CCN) fit $(DEFAULT) $(CONFIGS) $(ARGS)

# ccn finds the options of the checkpoint's run by itself.
FINETUNE = fit --config conf/experiment/finetune.yaml --finetune "$(CKPT)" --data.folder "$(FOLDER)" $(CONFIGS) $(ARGS)
PREDICT = predict --ckpt_path "$(CKPT)" $(CONFIGS) \
	$(if $(DATA),--data.folder "$(DATA)") $(if $(OUT),--output "$(OUT)") $(ARGS)
COMPARE = compare --data.folder "$(FOLDER)" --output "$(or $(OUT),runs/compare$(if $(QUICK),-quick))" \
	$(if $(QUICK),--quick) $(CONFIGS) $(ARGS)

finetune: need-CKPT need-DATA install  ## train a checkpoint's weights on newer data: CKPT= DATA=
	$(CCN) $(FINETUNE)

predict: need-CKPT install  ## write click probabilities to Parquet: CKPT= OUT= DATA= (default: the run's own data)
	$(CCN) $(PREDICT)

export: need-CKPT install  ## write a package of a checkpoint, which is served without torch: CKPT= OUT= DATA=
	$(CCN) export --ckpt_path "$(CKPT)" $(if $(DATA),--data.folder "$(DATA)") $(if $(OUT),--output "$(OUT)") $(ARGS)

serve: need-PACKAGE install  ## answer HTTP requests with a package: PACKAGE= ARGS="--port 8000"
	$(CCN) serve "$(PACKAGE)" $(ARGS)

score: need-PACKAGE need-REQUESTS need-OUT install  ## score files of raw candidate lists: PACKAGE= REQUESTS= OUT=
	$(CCN) score "$(PACKAGE)" "$(REQUESTS)" "$(OUT)" $(ARGS)

compare: data  ## the paper's Table 2 on any dataset folder: QUICK= DATA= OUT= CONFIG= ARGS=
	$(CCN) $(COMPARE)

# slurm/site.env has the defaults of what is not given here.
SUBMIT = $(CCN) submit $(if $(PARTITION),--partition "$(PARTITION)") $(if $(TIME),--time "$(TIME)") \
	$(if $(SBATCH),--sbatch="$(SBATCH)") $(if $(DRY_RUN),--dry_run)
SUBMIT_RUN = $(SUBMIT) --nodes $(or $(NODES),2) --gpus $(or $(GPUS),8)

train-multinode: $(if $(RESUME),install,data)  ## train on a SLURM cluster: NODES= GPUS= CONFIG= DATA= ARGS= RESUME=
	$(SUBMIT_RUN) $(if $(RESUME),--resume "$(RESUME)" fit $(CONFIGS),fit $(DEFAULT) $(CONFIGS)) $(ARGS)

finetune-multinode: need-CKPT need-DATA install  ## fine-tune on a SLURM cluster: NODES= GPUS= CKPT= DATA=
	$(SUBMIT_RUN) $(FINETUNE)

predict-multinode: need-CKPT install  ## predict on a SLURM cluster: NODES= GPUS= CKPT= OUT= DATA=
	$(SUBMIT_RUN) $(PREDICT)

compare-multinode: data  ## compare on a SLURM cluster, in jobs that share the work: TASKS= GPUS= DATA= OUT=
	$(SUBMIT) --tasks $(or $(TASKS),8) --gpus $(or $(GPUS),1) $(COMPARE)

simulate: install  ## let the compared systems rank pages of an unseen promotion: QUICK= OUT= ARGS=
	$(CCN) simulate --comparison "$(or $(OUT),runs/compare$(if $(QUICK),-quick))" $(ARGS)

plan: install  ## show which rank would hold which part of which table: CONFIG= ARGS=
	$(CCN) plan $(CONFIGS) $(ARGS)

# The libraries of the benchmark have an environment of their own, beside the project's, whose torch they use: both sides
# of a comparison run on one build, and nothing large is installed twice. FuxiCTR's models are in its source distribution
# only.
BENCH := $(VENV)-bench
BENCH_PIP = $(BENCH)/bin/python -m pip --quiet --quiet --disable-pip-version-check
SITE_PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))
$(BENCH)/installed: benchmarks/peers.txt | install
	@echo "installing the libraries of the benchmark into $(BENCH)"
	@$(VENV)/bin/python -m venv $$(test -f $(BENCH)/pyvenv.cfg && echo --clear) $(BENCH)
	@cd $$($(BENCH)/bin/python -c '$(SITE_PACKAGES)') && \
		$(abspath $(VENV))/bin/python -c '$(SITE_PACKAGES)' > environment_of_the_project.pth
	@$(BENCH_PIP) install --requirement benchmarks/peers.txt
	@$(BENCH_PIP) download --no-deps --no-binary fuxictr --dest $(BENCH)/fuxictr $$(grep '^fuxictr==' benchmarks/peers.txt)
	@tar --extract --gzip --file $(BENCH)/fuxictr/fuxictr-*.tar.gz --directory $(BENCH)/fuxictr --strip-components 1
	@touch $@

bench: $(BENCH)/installed  ## measure the speed of training, beside other libraries and the machine's limits: QUICK= WALL=
	$(VENV)/bin/python -m benchmarks.bench --peers $(BENCH) $(if $(WALL),--wall true) $(if $(QUICK),--quick true) $(ARGS)
	$(if $(QUICK),,$(VENV)/bin/python -m benchmarks.report)

doctor:  ## check the installation, and say how to repair it
	@$$(test -x $(VENV)/bin/python && echo $(VENV)/bin/python || echo $(PYTHON)) -m lightning_ccn.doctor

docs: $(VENV)/installed-dev  ## build the documentation into site/; dead links and missing pages fail
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

# Files in their order: by default those of few tests come last, and some of them take long.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/installed-dev  ## run the tests: ARGS="tests/nn -x"
	$(PYTEST) $(ARGS)

test-slow: $(VENV)/installed-dev  ## run the tests that `make test` leaves out because they take long
	$(PYTEST) -m slow $(ARGS)

test-gpu: $(VENV)/installed-dev  ## run the checks that need a GPU; each says why it is skipped where there is none
	$(VENV)/bin/python -m pytest -m gpu -rs tests/gpu $(ARGS)

test-slurm: $(VENV)/installed-dev  ## run the tests that start a real SLURM; needs root, on Debian or Ubuntu
	$(VENV)/bin/python -m pytest -m slurm -rs $(ARGS)

# Spark is large, so it has an environment of its own, beside the project's, whose libraries it uses.
SPARK := $(VENV)-spark
$(SPARK)/installed: pyproject.toml | install
	@echo "installing Spark into $(SPARK)"
	@$(VENV)/bin/python -m venv $$(test -f $(SPARK)/pyvenv.cfg && echo --clear) $(SPARK)
	@cd $$($(SPARK)/bin/python -c '$(SITE_PACKAGES)') && \
		$(abspath $(VENV))/bin/python -c '$(SITE_PACKAGES)' > environment_of_the_project.pth
	@$(SPARK)/bin/python -m pip --quiet --quiet --disable-pip-version-check install 'pyspark>=4,<5' 'sqlglot>=26'
	@touch $@

test-spark: $(VENV)/installed-dev $(SPARK)/installed  ## run the tests of the Spark engine; needs Java 17 or later
	$(SPARK)/bin/python -m pytest -m spark -rs tests/data/build $(ARGS)

lint: $(VENV)/installed-dev  ## check style, format, types and spelling
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell

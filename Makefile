# wharf.engine: everything a contributor or CI runs. Made for Debian 12 as root; elsewhere, install what
# tools/apt.sh names by hand. `make help` lists the targets.

SHELL      := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON     ?= python3
VENV       ?= .venv
BIN        := $(abspath $(VENV))/bin
VERSION    := $(shell sed -n 's/^version: //p' galaxy.yml)
BUILD      := $(abspath .build)
TREE       := $(BUILD)/ansible_collections/wharf/engine
PYTEST     := $(BIN)/python -m pytest
PYTEST_ARGS ?=
BENCH_ARGS ?=
LAB_APT    := qemu-system-x86 qemu-utils mmdebstrap e2fsprogs openssh-client
# Workers share the host, not files: a file's tests stay together. CI runs what failed once more and lists it as RERUN:
# on a crowded machine one lost race must not hide what the other tests say.
WORKERS    ?= 2
SPREAD     := -n $(WORKERS) --dist loadfile $(if $(CI),--reruns 1,--max-worker-restart 0)
export ANSIBLE_COLLECTIONS_PATH := $(BUILD)
# Nothing of a contributor's own Ansible setup may change what the tests see.
export ANSIBLE_CONFIG := $(CURDIR)/tools/ansible.cfg
export ANSIBLE_NOCOLOR := 1
export PYTHONDONTWRITEBYTECODE := 1

say = @printf '\n== %s\n' "$(1)"

.PHONY: oci oci-callers interop fuzz help apt venv tree lint sanity unit kernel integration molecule test campaign endure lab lab-suite lab-ci lab-matrix lab-apt bench demo demo-clean collection clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

apt:  ## install the Debian packages that tests and the demo need (only what is missing)
	@tools/apt.sh

venv: apt $(VENV)/.wharf-stamp  ## the virtualenv with pinned runtime requirements and the development tools

$(VENV)/.wharf-stamp: requirements.txt requirements-dev.txt
	$(call say,virtualenv in $(VENV))
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	touch $@

# ansible-test, ansible-lint and antsibull want a path .../ansible_collections/wharf/engine inside a git work tree.
tree: venv
	@$(BIN)/python tools/tree.py $(TREE)

lint: tree  ## ruff, mypy, yamllint, ansible-lint, changelog and docs lint
	$(call say,ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(call say,mypy)
	$(BIN)/mypy
	cd $(BUILD) && MYPYPATH=. $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --allow-untyped-calls \
	  $(addprefix -p ansible_collections.wharf.engine.plugins.,modules action plugin_utils) \
	  -m ansible_collections.wharf.engine.plugins.module_utils._delivery
	$(call say,yamllint)
	$(BIN)/yamllint --strict .
	$(call say,ansible-lint)
	cd $(TREE) && PATH=$(BIN):$$PATH $(BIN)/ansible-lint --offline --profile production --strict
	$(call say,antsibull-changelog and antsibull-docs)
	$(BIN)/antsibull-changelog lint
	cd $(TREE) && PATH=$(BIN):$$PATH $(BIN)/antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck \
	  --disallow-unknown-collection-refs --validate-collection-refs=self .

sanity: tree  ## ansible-test sanity
	$(call say,ansible-test sanity)
	@BIN=$(BIN) tools/sanity.sh $(TREE)

unit: venv  ## tests that need no root
	$(call say,unit tests)
	$(PYTEST) tests/unit $(SPREAD) $(PYTEST_ARGS)

kernel: venv  ## tests against the real kernel (root)
	$(call say,kernel tests)
	$(PYTEST) tests/kernel $(SPREAD) $(PYTEST_ARGS)

integration: tree  ## real ansible-playbook runs (root)
	$(call say,integration tests)
	$(PYTEST) tests/integration $(SPREAD) $(PYTEST_ARGS)

molecule: tree  ## the roles, verified with testinfra (root)
	$(call say,molecule)
	cd $(TREE) && PATH=$(BIN):$$PATH $(BIN)/molecule test -s host -s registry --report

test: lint sanity unit kernel integration molecule  ## everything CI runs

campaign: venv  ## random tasks and kills, invariants after each: ROUNDS=500 SEED=1 (a random seed without)
	$(call say,campaign)
	PYTHONPATH=plugins:tests $(BIN)/python -m campaign --rounds $(or $(ROUNDS),500) $(addprefix --seed ,$(SEED))

endure: venv  ## what the tests do a few times, as often as it should hold (10,000 clients, 300 rounds of races)
	$(call say,endure)
	WHARF_ROUNDS=10000 WHARF_RACES=300 $(PYTEST) --timeout 3600 tests/kernel/runtime/test_pressure.py \
	  tests/kernel/resources/test_races.py $(PYTEST_ARGS)

lab: tree lab-apt  ## virtual machines: SCENARIO=demo HOST=debian13; all of them without; KEEP=1 leaves them on
	PYTHONPATH=tests $(BIN)/python -m lab run --tree $(TREE) $(if $(KEEP),--keep) \
	  $(addprefix --host ,$(HOST)) $(addprefix --scenario ,$(SCENARIO))

lab-suite: tree lab-apt  ## the integration tests on a virtual machine, over ssh: HOST=debian13b
	PYTHONPATH=tests $(BIN)/python -m lab suite $(if $(KEEP),--keep) $(addprefix --host ,$(HOST)) -- $(PYTEST_ARGS)

lab-ci: tree  ## a short part of it, made for CI: the demo, twice, and a reboot on Debian 13, within MINUTES=30
	-@EXTRA="$(LAB_APT)" tools/apt.sh
	@tools/lab-ci.sh $(BIN)/python $(TREE) $(or $(MINUTES),30)

lab-matrix: venv  ## docs/support.md from the results of the last runs
	PYTHONPATH=tests $(BIN)/python -m lab matrix

lab-apt:
	@EXTRA="$(LAB_APT)" tools/apt.sh

bench: tree  ## measurements, as a table and as .build/bench.json
	$(call say,benchmarks)
	$(BIN)/python tests/bench/run.py --json $(BUILD)/bench.json $(BENCH_ARGS)

oci:  ## the runtime with runc's command line, as build/wharf-oci
	@$(PYTHON) tools/oci.py build

oci-callers: venv oci  ## the same under real callers: podman and dockerd (root; installs them with apt)
	@EXTRA="podman docker.io runc crun" tools/apt.sh
	$(PYTEST) tests/callers $(PYTEST_ARGS)

interop: venv  ## our archives in docker, podman, skopeo and umoci, and theirs in us (root; installs them with apt)
	@EXTRA="docker.io podman skopeo umoci" tools/apt.sh
	$(PYTEST) tests/interop $(PYTEST_ARGS)

# Where pip has no atheris for this Python, hypothesis alone looks for faults.
fuzz: venv  ## what reads strangers' bytes, fed with worse: SECONDS=60 (each) TARGET=tar SEED=1 REPLAY=file
	$(call say,fuzz)
	@[ -d $(BUILD)/atheris ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --target $(BUILD)/atheris 'atheris>=3' || echo 'atheris does not install here'
	PYTHONPATH=plugins:tests:$(BUILD)/atheris $(BIN)/python -m fuzz --directory $(BUILD)/fuzz \
	  --seconds $(or $(SECONDS),60) $(addprefix --target ,$(TARGET)) $(addprefix --seed ,$(SEED)) $(addprefix --replay ,$(REPLAY))

collection: tree  ## the collection tarball, in .build/dist
	cd $(TREE) && $(BIN)/ansible-galaxy collection build --force --output-path $(BUILD)/dist

demo: apt  ## a tour on this machine; leaves nothing behind (KEEP=1 keeps it)
	@PYTHON=$(PYTHON) KEEP=$(KEEP) tools/demo.sh

demo-clean:  ## take away what make demo KEEP=1 left
	@tools/demo-clean.sh

clean:  ## remove what the targets above made, except the virtualenv
	rm -rf $(BUILD) dist tests/output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

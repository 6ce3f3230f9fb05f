# make demo   set up and show what layerbuild does
# make test   set up and pass all tests
# make lint   style and types
# make bench  layerbuild beside other builders; needs root (bench/README.md)
# make docker unpack Debian's newest docker.io, and with it today's BuildKit, for `bench` and tests/differential
# Everything that the project needs from PyPI goes into $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LAYERBUILD := $(BIN)/layerbuild
# Clients that the tests ask for a second opinion, and what they build base images from; Debian's names.
TEST_PROGRAMS := skopeo umoci podman buildah mmdebstrap busybox newuidmap fuse-overlayfs setpriv mkfs.ext4 mkfs.btrfs git ssh-agent \
  sshd docker-registry htpasswd openssl gcc runc crun qemu-x86_64 qemu-riscv64-static dockerd \
  chromium pdftotext
TEST_PACKAGES := skopeo umoci podman buildah mmdebstrap busybox-static uidmap fuse-overlayfs util-linux e2fsprogs git openssh-client \
  openssh-server docker-registry apache2-utils openssl gcc libc6-dev runc crun libseccomp2 qemu-user qemu-user-static \
  docker.io btrfs-progs chromium poppler-utils
BENCH_PACKAGES := buildah podman docker.io umoci runc skopeo e2fsprogs mmdebstrap
# Its dockerd runs beside the libraries of Debian 12, with the machine's runc.
DOCKER_SUITE ?= sid

.PHONY: demo test lint docker bench bench-tools bench-parts catalogues setup setup-test test-tools clean

demo: setup
	$(LAYERBUILD) base host --tag base:host
	@echo; echo '--- the plan: nothing has run yet ---------------------------------------------'
	$(LAYERBUILD) plan recipes/textbook
	@echo; echo '--- the build -----------------------------------------------------------------'
	$(LAYERBUILD) build --tag textbook recipes/textbook
	@echo; echo '--- which instruction made which layer ----------------------------------------'
	$(LAYERBUILD) layers textbook
	@echo; echo '--- a container of it ---------------------------------------------------------'
	$(LAYERBUILD) run --rm textbook

test: setup-test test-tools
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Peers are those of BENCH_PACKAGES that are installed, and any BuildKit that buildctl reaches; BENCH='--scale small'
# tries it quickly.
bench: setup-test bench-tools
	$(BIN)/python -m bench $(BENCH)

bench-tools:
	@[ "$$(id -u)" = 0 ] || { echo 'make bench needs root'; exit 1; }
	@if command -v apt-get >/dev/null; then \
	  dpkg -s $(BENCH_PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(BENCH_PACKAGES); }; \
	  [ -e $(VENV)/docker ] || $(MAKE) docker || echo 'without the newest docker.io'; \
	fi

docker: setup-test
	bench/unpack.sh $(DOCKER_SUITE) $(VENV)/docker docker.io docker-cli docker-buildx containerd

bench-parts: setup-test
	$(BIN)/python bench/capture.py
	$(BIN)/python bench/steps.py
	$(BIN)/python bench/step_isolate.py
	$(BIN)/python -m bench.isolation

# After a text of a lesson or a translation of it has changed.
catalogues: setup-test
	$(BIN)/pybabel -q extract -k N_ --no-location --omit-header -o $(VENV)/lessons.pot layerbuild/lessons layerbuild/cli/commands/learn.py
	for po in layerbuild/lessons/locale/*/LC_MESSAGES/lessons.po; do \
	  $(BIN)/pybabel -q update --omit-header --no-fuzzy-matching --ignore-obsolete -i $(VENV)/lessons.pot -l $$(basename $$(dirname $$(dirname $$po))) -o $$po && \
	  $(BIN)/pybabel -q compile --use-fuzzy -i $$po -o $${po%.po}.mo || exit 1; done

setup: $(VENV)/.installed
setup-test: $(VENV)/.installed-test

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'layerbuild needs Python 3.11 or later; name one with: make PYTHON=python3.12 …'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'this Python can make no virtual environment; on Debian and Ubuntu: apt-get install python3-venv'; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.installed

# Tests that need an absent program are skipped and say so; LAYERBUILD_REQUIRE=all makes that a failure.
test-tools:
	@missing=; PATH="$$PATH:/usr/sbin:/sbin"; for program in $(TEST_PROGRAMS); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(TEST_PACKAGES); \
	else \
	  echo "not found:$$missing; to run the tests that need them: sudo apt-get install $(TEST_PACKAGES)"; \
	fi

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info

# make train, make lessons, make test, make fuzz, make check. Each installs what it needs on first use and starts at once after that.
#   make train ARGS="--model resnet20"     flags for experiments/train_classifier.py
#   make train EXTRA=cuda                  more extras of pyproject.toml: cuda, tpu, tensorflow
#   make lessons ARGS="--lang ko"          flags for experiments/lessons.py
#   make test ARGS="-m 'not slow'"         flags for pytest
#   make fuzz SEED=1 CASES=2000 MINUTES=10 drawn convolutions against float64, until the first of the two
#   make train PYTHON=python3.12           the Python that .venv is made with

PYTHON ?= python3
EXTRA ?=
ARGS ?=

# Where the Python in use already has this very checkout installed, it is used; otherwise .venv is made.
# Asked from another folder, because here the package is found without being installed.
ACTIVE := $(shell cd /; $(PYTHON) -c "import importlib.util as u, sys; sys.stdout.write(sys.prefix \
  * u.find_spec('jaxcnn').origin.startswith('$(CURDIR)/'))" 2>/dev/null)
ENV := $(or $(ACTIVE),.venv)
RUN := $(ENV)/bin/python

comma := ,
space := $(subst ,, )
# One stamp for each set of extras that was installed; a newer pyproject.toml installs again.
extras = $(subst $(space),$(comma),$(strip $(1) $(subst $(comma),$(space),$(EXTRA))))
stamp = $(ENV)/.jaxcnn-$(subst $(comma),-,$(call extras,$(1)))
TRAIN := $(call stamp,train)
LESSONS := $(call stamp,train lessons)
TEST := $(call stamp,train lessons test)
CHECK := $(call stamp,train lessons test dev)

.PHONY: train lessons test fuzz check
train: $(TRAIN)
	@$(RUN) experiments/train_classifier.py $(ARGS)

lessons: $(LESSONS)
	@$(RUN) experiments/lessons.py $(ARGS)

test: $(TEST)
	@$(RUN) -m pytest -q -n auto --maxprocesses 8 $(ARGS)

fuzz: $(TEST)
	@$(RUN) -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(CASES),--cases $(CASES)) \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

check: $(CHECK)
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m pyright --pythonpath $(RUN)

$(TRAIN): wanted := $(call extras,train)
$(LESSONS): wanted := $(call extras,train lessons)
$(TEST): wanted := $(call extras,train lessons test)
$(CHECK): wanted := $(call extras,train lessons test dev)
# In an environment of the user's own nothing is installed that is there already.
has_all = import sys; from importlib.util import find_spec; names = dict(train="tyro grain orbax sklearn", lessons="skimage \
  mnist1d", test="pytest hypothesis beartype onnx", dev="ruff pyright"); wanted = "$(wanted)".split(","); \
  sys.exit(any(e not in names or not all(map(find_spec, names[e].split())) for e in wanted))
$(TRAIN) $(LESSONS) $(TEST) $(CHECK): pyproject.toml | $(RUN)
	@$(if $(ACTIVE),$(RUN) -c '$(has_all)' ||) { \
	  echo "Installing jaxcnn with the extras $(wanted) into $(ENV) (once)"; \
	  $(RUN) -m pip install --quiet --disable-pip-version-check -e ".[$(wanted)]"; }
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "jaxcnn needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv

# For contributors. Users need ./start.sh alone.
PY := .venv/bin

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## Install everything and run every test once
	./start.sh test

.PHONY: dev
dev: ## Serve with hot reload of Python and of the page
	./start.sh dev

.PHONY: check
check: ## Format, lint, types and layers, Python and page (half a minute)
	$(PY)/ruff format --check --output-format concise .
	$(PY)/ruff check --quiet .
	$(PY)/mypy
	PYTHONPATH=backend $(PY)/lint-imports --no-logo
	npm --prefix frontend run --silent lint
	npm --prefix frontend run --silent typecheck

.PHONY: format
format: ## Format and mend what can be mended
	$(PY)/ruff format .
	$(PY)/ruff check --fix .
	npm --prefix frontend run --silent format

.PHONY: test
test: ## The Python tests and the page's unit tests
	$(PY)/python -m pytest
	npm --prefix frontend run --silent test

.PHONY: replay
replay: ## All answers of this tree beside those of an earlier one: make replay BASE=HEAD~3 ONLY=catalogue/ ROWS=200
	PYTHONPATH=backend:tests $(PY)/python -m replay --base "$(BASE)" --only "$(ONLY)" --rows $(or $(ROWS),60)

.PHONY: replay-record
replay-record: ## After a deliberate change: write tests/oracles/replay.tsv anew (ONLY=recipe/ for a part)
	PYTHONPATH=backend:tests $(PY)/python -m replay --record --only "$(ONLY)"

.PHONY: contract
contract: ## Schemathesis against the OpenAPI schema, nothing may fail: make contract SCHEMATHESIS=path/to/schemathesis
	$(PY)/python tests/contract/run.py --schemathesis $(or $(SCHEMATHESIS),schemathesis)

.PHONY: roundtrip
roundtrip: ## 500 random recipes to each trainer's config or script and back (some minutes)
	PYTHONPATH=backend:tests nice -n 10 $(PY)/python tests/trainers/roundtrip.py 500

.PHONY: trl-steps
trl-steps: ## Exported TRL scripts run a real step: make trl-steps TRL=path/to/python (of an environment with trl and datasets)
	PYTHONPATH=backend:tests $(TRL) tests/trainers/trl_steps.py

.PHONY: trl-traces
trl-traces: ## TRL's losses traced in the installed version, appended to two files: make trl-traces TRL=path/to/python STEPS=file EVALUATIONS=file
	PYTHONPATH=backend:tests $(TRL) tests/trainers/trl_traces.py $(STEPS) $(EVALUATIONS)

.PHONY: trl-objectives
trl-objectives: ## Other objectives' steps traced in TRL's own code, appended to a file: make trl-objectives TRL=path/to/python FILE=file NAMES="dpo/ kto/"
	PYTHONPATH=backend:tests $(TRL) tests/trainers/trl_objective_traces.py $(FILE) $(NAMES)

.PHONY: oom-events
oom-events: ## 200 made-up out-of-memory messages: how often the tensor is named, with the set-up and without (a quarter of an hour)
	PYTHONPATH=backend:tests nice -n 10 $(PY)/python tests/trainers/oom_events.py 200

.PHONY: fuzz
fuzz: ## 20,000 broken configs in place of the usual 1,000, each one that can be counted walked too (a quarter of an hour)
	FUZZ_EXAMPLES=20000 nice -n 10 $(PY)/python -m pytest -q tests/core/architecture/test_broken_configs.py --hypothesis-show-statistics

.PHONY: test-gpu
test-gpu: ## The tests that need a CUDA device
	$(PY)/python -m pytest -m gpu

.PHONY: interpreters
interpreters: ## The traced grid in every Python from 3.11 to 3.14 that is here; 3.14 also as it is compiled for Node
	npm --prefix tests/interpreters ci --silent
	$(PY)/python tests/interpreters/compare.py

.PHONY: test-docker
test-docker: ## Build the image, start it, ask it, stop it (needs a Docker engine)
	$(PY)/python -m pytest -m docker

.PHONY: e2e
e2e: ## The page in a real browser
	npm --prefix frontend run --silent e2e

.PHONY: shots
shots: ## Pictures of every scene of the page in two languages, two themes and three widths, to be looked at: make shots OUT=folder
	node tests/e2e/shots.mjs $(or $(OUT),frontend/screenshots/shots)

.PHONY: pictures
pictures: ## The READMEs' pictures of the page, after npm --prefix frontend run build
	node tests/e2e/pictures.mjs

.PHONY: api-types
api-types: ## Write frontend/openapi.json and the page's API types from the backend
	PYTHONPATH=backend $(PY)/python -c "import json; from loralens.api.app import create_app; print(json.dumps(create_app().openapi(), ensure_ascii=False, indent=1))" > frontend/openapi.json
	PYTHONPATH=backend $(PY)/python -m loralens.core.question.words_json > frontend/src/shared/api/words.json
	npm --prefix frontend run --silent api-types

.PHONY: docs
docs: ## Write the output of every command in the READMEs and docs/cli.md anew
	PYTHONPATH=backend:. $(PY)/python -m tests.architecture.documents
	PYTHONPATH=backend:. $(PY)/python -m tests.architecture.models_page
	PYTHONPATH=backend $(PY)/python -m loralens.planner.course_markdown docs/course-numbers.md

.PHONY: notebooks
notebooks: ## Run the four lessons and write them as notebooks with their output, zh and en (some minutes)
	OMP_NUM_THREADS=2 $(PY)/python code/part2/notebooks.py --lesson "$(LESSON)"

.PHONY: image
image: ## Build the container image
	docker compose build

.PHONY: wheel
wheel: ## Build dist/loralens-*.whl with the page inside: it needs neither Node nor PyTorch where it is installed
	npm --prefix frontend run --silent build
	rm -rf backend/loralens/web && cp -R frontend/dist backend/loralens/web
	$(PY)/python -m pip wheel --no-deps --wheel-dir dist ./backend
	rm -rf backend/loralens/web

.PHONY: lock
lock: ## Pin the versions that are installed now
	$(PY)/python .ci/lock.py

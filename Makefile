# The commands of this repository. `make help` lists them; each does its own set-up.
# Needed beforehand: Rust (rustup reads rust-toolchain.toml), Python 3, make. What is fetched goes to
# $PGSLUICE_CACHE (/var/cache/pgsluice as root, ~/.cache/pgsluice otherwise).
.POSIX:
.DEFAULT_GOAL := help
.PHONY: help build release demo walk test auth-matrix ui-test lint bench bench-micro bench-e2e bench-page pictures fuzz soak soak-desync image suites corpus clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## The release binary: target/release/pgsluice
	cargo build --release --locked

release: ## The release binary guided by a profile of its own work, for production: target/guided/pgsluice
	tools/guided.sh

demo: ## PostgreSQL, pgsluice and a Django shop with N+1 queries; what is found, in a table (KEEP=1 leaves it up)
	cargo build --release --locked
	python3 demo/run.py --pgsluice target/release/pgsluice

walk: ## docs/getting-started.md step by step with an application from PyPI (pretalx): its worst view, and the time it took
	cargo build --locked --profile quick
	python3 tools/walk.py --pgsluice target/quick/pgsluice

test: ## Every test, on the PostgreSQL found and on the embedded one; ends with a count
	tools/test.sh

auth-matrix: ## Every way to log in x every way on to the server x every driver (make test has a part of it)
	PGSLUICE_MATRIX=full cargo test --locked --test auth_matrix -- --nocapture

ui-test: ## The page in a real browser, which is fetched when there is none; screenshots in out/page
	cargo build --locked
	UI_FETCH=1 python3 tests/python/test_page.py -v

lint: ## Format, clippy, documentation, licences and banned crates; ends with a count
	tools/lint.sh

bench: bench-micro bench-e2e ## Both kinds of benchmark

bench-micro: ## Benchmarks of functions (benches/*.rs)
	cargo bench --locked

bench-e2e: ## Side by side with PgBouncer: throughput, CPU, latency, memory, system calls (ARGS=--quick)
	tools/guided.sh
	python3 benches/e2e/run.py --pgsluice target/guided/pgsluice $(ARGS)

bench-page: ## Time to the page's first paint, and CPU per transaction while ten pages are open (in Chromium, which is fetched)
	tools/guided.sh
	python3 benches/e2e/page.py --pgsluice target/guided/pgsluice $(ARGS)

pictures: ## The README's pictures: the page and the report of the demo shop before and after its mends (in Chromium)
	cargo build --release --locked
	python3 demo/mended.py --pictures docs/images

fuzz: ## Fuzz every target for FUZZ_SECONDS (60) each; needs nightly Rust and cargo-fuzz
	tools/fuzz.sh

soak: ## 2,000 idle and 100 busy clients for SOAK_MINUTES (10): memory, descriptors and errors must stay put
	cargo build --release --locked
	python3 benches/e2e/soak.py --pgsluice target/release/pgsluice

soak-desync: ## 200 random clients on 3 servers for DESYNC_MINUTES (10), every answer held against PostgreSQL's; DESYNC_SEED=n repeats
	DESYNC_MINUTES=$${DESYNC_MINUTES:-10} DESYNC_CLIENTS=$${DESYNC_CLIENTS:-200} \
	cargo test --locked --profile quick --test desync no_client_ever -- --nocapture

image: ## The container image (needs docker or podman); its steps are also run by `make test`
	tools/image.sh

suites: ## External suites (Django's, psycopg2's, asyncpg's...) through pgsluice: SUITES=directory of run_*.sh
	tools/suites.sh "$(SUITES)" $(ARGS)

corpus: ## Precision and recall of N+1 detection on labelled recordings: CORPUS=directory (docs/detection.md)
	cargo build --release --locked
	cargo build --release --locked --example replay_corpus
	python3 tools/score_corpus.py "$(CORPUS)" $(ARGS)

clean: ## What was built; the cache of downloads stays
	cargo clean

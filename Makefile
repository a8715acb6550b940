# make run    builds everything and shows the live demo; Ctrl-C ends it
# make test   installs what the tests need (Debian), lints, and runs all tests
# make help   lists the rest

GO      ?= go
PKGS    := ./...
LINT    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT := mvdan.cc/gofumpt@v0.12.0
FUZZTIME ?= 30s

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort | expand -t 14

.PHONY: build
build: ## build bin/caddy and bin/feeder
	$(GO) build -o bin/ ./cmd/caddy ./examples/dashboard/feeder

.PHONY: run
run: build ## run Caddyfile.example with the dashboard
	@scripts/run

.PHONY: deps
deps: ## install what the tests need: chromium, curl, node, redis-server
	@scripts/deps

.PHONY: test
test: deps lint cross ## lint, cross-compile, and run all tests with the race detector
	$(GO) test -race -timeout 10m $(PKGS)
	@[ "$$($(GO) env GOHOSTOS)/$$($(GO) env GOHOSTARCH)" != linux/amd64 ] || $(MAKE) test-32
	cd bench && $(GO) vet ./... && $(GO) test -timeout 5m ./...

.PHONY: test-32
test-32: ## run the library's tests as on a machine of 32 bits
	CGO_ENABLED=0 GOARCH=386 $(GO) test -timeout 5m ./sse ./sse/boltbroker ./sse/redisbroker

.PHONY: lint
lint: ## check the code's form and run the linters, go vet's among them
	@unformatted="$$($(GO) run $(GOFUMPT) -l .)"; \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) run $(LINT) run --allow-parallel-runners $(PKGS)

.PHONY: fmt
fmt: ## format the code
	$(GO) run $(GOFUMPT) -w .

.PHONY: cross
cross: ## compile for the other systems
	@for target in linux/arm64 darwin/arm64 windows/amd64; do \
		echo "compile for $$target"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) build -o /dev/null ./sse/... ./caddymodule ./examples/... || exit 1; \
	done

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME
	@for pkg in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -rhoE '^func Fuzz[A-Za-z0-9]+' $$pkg/*_test.go | awk '{print $$2}'); do \
			echo "fuzz $$pkg $$target"; \
			$(GO) test $$pkg -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) || exit 1; \
		done; \
	done

TORTURE_TIME ?= 10m

# TestTorture is of one node, TestThreeNodes of three that share a record in Redis. Each takes TORTURE_TIME.
TORTURE_TEST ?= TestTorture|TestThreeNodes

.PHONY: torture
torture: ## kill, stop, reload and cut off Caddy for TORTURE_TIME, and check that nothing is lost (see docs/torture.md)
	TORTURE_TIME=$(TORTURE_TIME) TORTURE_SEED=$(TORTURE_SEED) $(GO) test -race -v -count=1 -timeout 0 -run '^($(TORTURE_TEST))$$' ./internal/torture

.PHONY: bench
bench: ## measure delivery against the machine's limit (see bench/README.md)
	cd bench && $(GO) run .

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

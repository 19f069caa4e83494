# Every check is defined here once: people, CI and `nix flake check` call the
# same targets.

GO       ?= go
TOOLS    := $(CURDIR)/.tools/bin
GOLANGCI := $(TOOLS)/golangci-lint
BUF      := $(TOOLS)/buf
KUBO     := $(CURDIR)/.tools/ipfs
PROMTOOL := $(TOOLS)/promtool

# Where the programs are built, and whence they are installed.
BIN         ?= bin
BUILD_FLAGS ?= -trimpath
# make install puts everything below DESTDIR, for who lives in PREFIX.
PREFIX   ?= /usr/local
DESTDIR  ?=

GOLANGCI_VERSION      := v2.15.0
BUF_VERSION           := v1.73.0
PROTOC_GEN_GO_VERSION := v1.36.12
GOVULNCHECK_VERSION   := v1.9.0

# What the tests need from the system, as Debian names it.
DEBIAN_PACKAGES := bubblewrap chromium dbus g++ gcc iproute2 miniupnpd-nftables nftables nix-bin nodejs systemd
# Other packages of Node.js bring npm along, and conflict with Debian's.
DEBIAN_PACKAGES += $(if $(shell command -v npm),,npm)

# What the benchmarks compare with, and measure by.
BENCH_PACKAGES := aria2 curl iperf3 nginx-light python3-libtorrent wrk xz-utils

FUZZTIME ?= 1m

# The tests of docs/nat.md's table.
NAT_CASES := NAT|Punch|RelayDies|RelaysOfThePublic|NetworkOfTheHolder|PortsOfTheRouter|FiftyBehind

.PHONY: all
all: build

.PHONY: build
build: ## Both programs, into bin/.
	$(GO) build $(BUILD_FLAGS) -o '$(BIN)/' ./cmd/nar-p2pd ./cmd/p2pctl

.PHONY: install
install: build install-files ## Programs, man pages, completions and units below PREFIX (/usr/local).

# install-files builds nothing. P2PCTL writes the man pages: where BIN is for
# another system, one that runs here.
.PHONY: install-files
install-files: P2PCTL ?= $(BIN)/p2pctl
install-files:
	BIN='$(BIN)' P2PCTL='$(P2PCTL)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' .ci/install

.PHONY: run
run: build ## Start the daemon with its defaults.
	bin/nar-p2pd

# The version of a package is that of the changelog until it is tagged.
VERSION ?= 0.1.0

.PHONY: package
package: ## What is released, into dist/: archives, .deb, OCI image, SBOM, licences, notes, checksums.
	$(GO) run -C .ci/package . -source '$(CURDIR)' -out '$(CURDIR)/dist' -version '$(VERSION)' \
	  -date "$$(git log -1 --format=%ct)" $(PACKAGE_FLAGS)

.PHONY: package-check
package-check: ## That two builds are equal, and the Debian package comes and goes; as root, some minutes.
	.ci/deps mmdebstrap
	.ci/package-check

.PHONY: site
site: ## The documents as a small site, into bin/site.
	$(GO) run -C .ci/site . -source '$(CURDIR)' -out '$(CURDIR)/bin/site'

.PHONY: demo
demo: ## The main job on this machine: a bootstrap node, a provider, a consumer.
	$(GO) run ./e2e/demo

.PHONY: test
test: deps check unit ## Everything that CI runs.
	@echo 'test: all checks and tests have passed; nothing was skipped'

.PHONY: check
check: tidy vet lint generated vendored ## All checks that run no test.

.PHONY: unit
unit: ## All tests, end to end ones included, with the race detector.
	$(GO) test -race -timeout 18m ./...
	$(GO) test -C .ci/site -count=1 ./...
	$(GO) test -C .ci/package -count=1 ./...

.PHONY: interop
interop: $(KUBO) ## With a real node of IPFS, which is built first: that takes minutes.
	$(GO) test -tags interop -count=1 -run '^TestKubo$$' ./e2e

.PHONY: vet
vet:
	$(GO) vet -tags interop ./...

.PHONY: tidy
tidy:
	for module in . .ci/package .ci/site; do $(GO) -C $$module mod tidy -diff || exit 1; done
	$(GO) mod verify >/dev/null

.PHONY: lint
lint: $(GOLANGCI)
	for module in . .ci/package .ci/site; do \
	  (cd $$module && $(GOLANGCI) run ./... && $(GOLANGCI) fmt --diff ./...) || exit 1; \
	done

.PHONY: generate
generate: $(BUF) $(TOOLS)/protoc-gen-go ## Rewrite the generated files.
	PATH='$(TOOLS)':"$$PATH" $(BUF) generate --template p2p/buf.gen.yaml -o p2p p2p
	$(GO) generate ./...

# generated regenerates into the tree and compares, so that a stale committed
# file fails even when the tree was clean.
.PHONY: generated
generated: generate
	PATH='$(TOOLS)':"$$PATH" $(BUF) lint p2p
	@git diff --exit-code --stat -- '*.pb.go' docs || \
	  { echo 'generated files differ from their sources: commit the result of `make generate`'; exit 1; }

.PHONY: assets
assets: ## Fetch again what the dashboard embeds of others.
	$(GO) run ./substituter/web/assets substituter/web/uplot.json substituter/web/static/uplot

# What Nix needs to know of the modules.
.PHONY: vendored
vendored:
	GO='$(GO)' .ci/vendor-hash --check

.PHONY: vendor-hash
vendor-hash: ## Tell the Nix package which modules there are, after go.mod has changed.
	GO='$(GO)' .ci/vendor-hash --update

.PHONY: bench
bench: deps ## Measure speed beside baselines; ONLY=lines, OUT=file for JSON.
	.ci/deps $(BENCH_PACKAGES)
	@$(GO) run ./e2e/bench

.PHONY: nat
nat: deps ## What NATs let through: every case once, and 50 punches for each kind of NAT.
	TEST_NAT_TIMES=1 $(GO) test -count=1 -v -parallel 1 -timeout 30m -run '$(NAT_CASES)' ./e2e
	$(GO) test -run '^$$' -bench Punching -benchtime 1x -timeout 30m ./e2e

.PHONY: nix-faults
nix-faults: deps ## Write docs/nix-faults.md from a run with every version of Nix.
	TEST_NIX_FAULTS_TABLE='$(CURDIR)/docs/nix-faults.md' $(GO) test -count=1 -timeout 60m -run BuildsGoOn ./e2e/faults

.PHONY: faults
faults: nix-faults ## All faults with every version of Nix; writes docs/reliability.md and docs/nix-faults.md.
	TEST_RELIABILITY_TABLE='$(CURDIR)/docs/reliability.md' $(GO) test -count=1 -timeout 60m -run NodesSurvive ./e2e/faults

.PHONY: load
load: deps ## 200 clients at once for ten minutes, and 64 peers who share an upload limit.
	TEST_FULL_SCALE=1 $(GO) test -count=1 -v -timeout 40m ./e2e/load

.PHONY: soak
soak: deps ## Half an hour of peers, store changes and garbage collections: nothing may grow.
	TEST_SOAK_TIME=30m $(GO) test -count=1 -v -timeout 40m ./e2e/soak

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME.
	.ci/fuzz $(FUZZTIME)

.PHONY: corpus
corpus: ## Make seeds of the few inputs that fuzzing has found here and that do what no other does.
	$(GO) run ./.ci/corpus

# The database, if not the one at https://vuln.go.dev: docs/dependencies.md.
VULNDB ?=

.PHONY: vulncheck
vulncheck: $(TOOLS)/govulncheck ## Known holes in what the programs use; VULNDB=file:///... without a network.
	$(TOOLS)/govulncheck $(if $(VULNDB),-db '$(VULNDB)') ./cmd/...

.PHONY: sim
sim: ## Announcing and looking up among 10,000 simulated servers; 2 GB and some minutes.
	$(GO) run ./e2e/sim

.PHONY: scale
scale: deps ## A node that announces 100,000 paths to 40 servers: seconds, messages, memory.
	$(GO) test -run '^$$' -bench AnnounceStore -benchtime 1x -timeout 30m ./e2e

.PHONY: test-full
test-full: deps check ## Everything at full scale; writes docs/reports/.
	.ci/test-full

.PHONY: fmt
fmt: $(GOLANGCI)
	$(GOLANGCI) fmt ./...

.PHONY: deps
deps: ## Install what the tests need from the system.
	.ci/deps $(DEBIAN_PACKAGES)
	@.ci/promtool '$(PROMTOOL)'
	@.ci/nix-versions >/dev/null

$(GOLANGCI):
	GOBIN='$(TOOLS)' $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(KUBO): e2e/interop/go.mod e2e/interop/go.sum e2e/interop/main.go
	cd e2e/interop && $(GO) build -trimpath -o '$@' .

$(BUF):
	GOBIN='$(TOOLS)' $(GO) install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)

$(TOOLS)/protoc-gen-go:
	GOBIN='$(TOOLS)' $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)

$(TOOLS)/govulncheck:
	GOBIN='$(TOOLS)' $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

.PHONY: clean
clean:
	rm -rf bin dist

.PHONY: help
help: ## This list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

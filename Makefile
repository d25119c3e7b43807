# Every target is one plain command, which the README gives as well. "make help" lists them.

GO          := go
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0
CYCLONEDX   := $(GO) run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
TAGS        := compose,pod,stoppoints
FUZZTIME    := 5s

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# A module of its own, under examples/, is linted and tested as the main one is.
MODULES := $(sort $(dir $(shell find . -name go.mod -not -path './.*')))

# Tests run against a real Vault. Where there is none it is built once, here, and not within the time of a test.
VAULT := vault=$${VAULT_BIN:-$$(command -v vault || { cd examples/devvault && $(GO) run .; })} && export VAULT_BIN="$$vault"

.PHONY: help demo drill up up-local down build test pod-test compose-test bench faults fuzz lint sbom licences vuln
.DEFAULT_GOAL := help

help: ## print this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## a real Vault, the agent, the app, and a key that rotates under load
	$(GO) run ./examples/quickstart

drill: ## many rotations under load; fails if a request failed
	$(GO) run ./examples/quickstart drill -json dist/drill.json -plot dist/drill.svg

up: ## the stack of docker-compose.yml, with your key
	examples/compose/up.sh

up-local: ## the same with a stand-in for Gemini: no key, no internet
	examples/compose/up.sh local

down: ## take the stack down
	examples/compose/down.sh

build: ## bin/keyturn-agent and bin/keyturn-app, static
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/keyturn-agent ./agent
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/keyturn-app ./app

# One package at a time: many a test bounds how long something may take.
test: ## every test, with the race detector
	$(VAULT) && set -e; for module in $(MODULES); do (cd $$module && $(GO) test -race -shuffle=on -p 1 -timeout 20m ./...); done

# SHORT=-short leaves out the case that takes eleven minutes.
pod-test: ## the pod on a real Kubernetes: KUBECONFIG's, or one of its own (as root, on Debian)
	$(VAULT) && { test -n "$$KUBECONFIG" || $(GO) -C examples/devcluster run . tools >/dev/null; } && \
		$(GO) test -tags pod -race -count=1 -parallel 6 -timeout 30m -v $(SHORT) ./examples/kubernetes/podtest

compose-test: ## the Dockerfiles and the stack against a real Docker engine
	$(VAULT) && $(GO) test -tags compose -v -timeout 40m ./examples/compose

bench: ## every benchmark
	$(VAULT) && $(GO) test -run '^$$' -bench . -benchmem -timeout 30m ./...

faults: ## every fault in full, some six minutes (as root); writes what became of each to README.md
	$(VAULT) && export CI=true && cd examples/e2e && $(GO) test -count=1 -parallel 4 -timeout 30m -run '^Test(EachFault|AgentAndAppMay|AFleet)' . \
		-faults -faults.table=testdata/faults.md && $(GO) test -count=1 -run '^TestTheReadmesTableOfFaults' . -update

# Until Go 1.27 a run may fail as its time is over, with nothing found (go.dev/issue/75804). What is found is written to testdata.
fuzz: ## each fuzz target for FUZZTIME
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do dir=./$$(dirname $$file); \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$dir || \
				{ $(GO) test -run "^$$target\$$" $$dir && test -z "$$(git ls-files --others $$dir/testdata/fuzz)"; }; \
		done; \
	done

lint: ## gofmt, go mod tidy and verify, vet and staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; } >&2
	@set -e; for module in $(MODULES); do echo "lint $$module"; (cd $$module && \
		$(GO) mod tidy -diff && $(GO) mod verify && $(GO) vet -tags $(TAGS) ./... && $(STATICCHECK) -tags $(TAGS) ./...); done

sbom: ## what each program is made of, as CycloneDX: dist/keyturn-agent.cdx.json and dist/keyturn-app.cdx.json
	@mkdir -p dist
	@set -e; for half in agent app; do \
		CGO_ENABLED=0 $(CYCLONEDX) app -json -licenses -std -main $$half -output dist/keyturn-$$half.cdx.json .; done

licences: sbom ## the licence of every module in the programs; fails on one that doesn't go with Apache-2.0
	@.ci/licences dist/keyturn-agent.cdx.json dist/keyturn-app.cdx.json

vuln: ## known vulnerabilities that the programs can reach; where the database can't be asked, a sentence
	@said=$$($(GOVULNCHECK) ./agent ./app 2>&1) && failed=0 || failed=1; echo "$$said"; case "$$said" in \
		*"fetching vulnerabilities"*"dial tcp"*) echo "NOT CHECKED: vuln.go.dev can't be reached from here"; exit 0 ;; esac; exit $$failed

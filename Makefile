# Every target does the set-up it needs; `make` alone prints this list.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-full bench bench-swarm bench-fleet bench-console bench-storm simulate setup assets build console screenshots install programs initramfs golden lab vet clean

BUILD := build
# The PATH of a login as root on Debian; sgdisk and mkfs.* live in sbin.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export GOFLAGS ?= -buildvcs=false

# What the lab and the tests need, as Debian packages. A missing one is installed by `setup`.
PACKAGES := qemu-system-x86 qemu-utils ovmf ipxe-qemu dnsmasq-base iproute2 gdisk fdisk mtools dosfstools e2fsprogs \
	ntfs-3g partclone mmdebstrap debian-archive-keyring grub-common grub-pc-bin zstd cpio kmod xz-utils python3-libtorrent \
	xfsprogs btrfs-progs exfatprogs lvm2 cryptsetup-bin f2fs-tools exfat-fuse fuse3 \
	aria2 udpcast transmission-daemon tshark nginx-light postgresql exim4-daemon-light \
	chromium fonts-noto-cjk curl atftp openssl systemd procps util-linux diffutils gcc libc6-dev ca-certificates

help: ## print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: setup build assets initramfs golden ## image three virtual machines over the network, from PXE to their login prompts
	go run ./test-vm/demo

test: ## run every test: units, race, real tools, namespaces, virtual machines
	go run ./test-vm/suite

test-full: ## the same with the long counts
	go run ./test-vm/suite -full

bench: setup build assets initramfs ## measure against the tools of today; BENCH names parts or flags, for example "-disk 4 capture"
	go run ./test-vm/bench $(BENCH)

bench-swarm: setup ## measure the swarm against others on shaped links; BENCH names flags, for example "-peers 8 -runs 2 -scenario room"
	go run ./test-vm/bench -runs 5 $(BENCH) swarm

bench-fleet: setup ## 1,000 simulated agents against an appliance; BENCH names flags, for example "-agents 200 -herd"
	go run ./test-vm/bench $(BENCH) fleet

bench-console: setup console ## the rooms of 1,000 simulated agents in a browser; BENCH names flags, for example "-agents 200 -content 20s"
	go run ./test-vm/bench $(BENCH) console

bench-storm: setup build ## boot 500 simulated machines at once, against dnsmasq + nginx; BENCH names flags, for example "-clients 100 -runs 1 -loss 0"
	go run ./test-vm/bench $(BENCH) storm

simulate: ## simulate the swarm's schedule; SIMULATE names flags, for example "-peers 1000 -size 60G", without them the standard tables
	go run ./test-vm/simulator $(SIMULATE)

setup: ## install the Debian packages that the lab and the tests need
	@missing=(); for p in $(PACKAGES); do \
	  [ "$$(dpkg-query -Wf '$${db:Status-Status}' $$p 2>/dev/null || true)" = installed ] || missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing $${missing[*]}"; \
	  [ "$$(id -u)" = 0 ] || { echo "setup: installing packages needs root"; exit 1; }; \
	  apt-get update -q >/dev/null; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$${missing[@]}" >/dev/null; \
	fi

assets: setup ## fetch kernel, modules, firmware and boot loaders from Debian 13 packages into build/boot
	go run ./initramfs/build assets

# The console's scripts come from npm packages, which the lock names with their hashes; the program has them built in. axe-core is for tests.
CONSOLE := appliance/console
VENDOR := $(CONSOLE)/static/vendor

console: setup $(VENDOR)/.done ## fetch what the web console has from npm packages into appliance/console/static/vendor

$(VENDOR)/.done: $(CONSOLE)/npm/package.json $(CONSOLE)/npm/package-lock.json
	command -v npm >/dev/null || apt-get install -q -y --no-install-recommends npm >/dev/null
	cd $(CONSOLE)/npm && npm ci --silent --no-audit --no-fund --ignore-scripts
	mkdir -p $(VENDOR)
	cp $(CONSOLE)/npm/node_modules/htmx.org/dist/htmx.min.js $(CONSOLE)/npm/node_modules/uplot/dist/uPlot.iife.min.js \
	  $(CONSOLE)/npm/node_modules/uplot/dist/uPlot.min.css $(VENDOR)
	touch $@

screenshots: console ## pictures of every page and dialog of the web console into build/screenshots
	rm -rf $(BUILD)/screenshots && mkdir -p $(BUILD)/screenshots
	SEEDBED_FULL=1 SEEDBED_PICTURES=$(CURDIR)/$(BUILD)/screenshots go test -count=1 -timeout 30m -run "TestPages|TestDialogs" ./$(CONSOLE)/

build: $(VENDOR)/.done ## build the seedbed program into build/seedbed
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BUILD)/seedbed ./appliance

# Where `make install` puts things: below DESTDIR, if that is set; the program and its service below PREFIX.
PREFIX ?= /usr
DESTDIR ?=

install: build ## install the program as a service of systemd; DESTDIR and PREFIX say where
	install -D -m 0755 $(BUILD)/seedbed $(DESTDIR)$(PREFIX)/bin/seedbed
	install -D -m 0644 appliance/README.md $(DESTDIR)$(PREFIX)/share/doc/seedbed/README.md
	$(BUILD)/seedbed man $(DESTDIR)$(PREFIX)/share/man/man1
	for shell in bash-completion/completions/seedbed zsh/vendor-completions/_seedbed fish/vendor_completions.d/seedbed.fish; do \
	  $(BUILD)/seedbed completion $$(echo $$shell | sed 's/[-/].*//') > $(BUILD)/completion && \
	  install -D -m 0644 $(BUILD)/completion $(DESTDIR)$(PREFIX)/share/$$shell; done
	install -D -m 0644 appliance/systemd/seedbed.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/seedbed.conf
	install -D -m 0644 appliance/systemd/seedbed.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/seedbed.conf
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/|$(PREFIX)/|' appliance/systemd/seedbed.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/seedbed.service
	chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/seedbed.service
	install -d -m 0750 $(DESTDIR)/etc/seedbed
	[ -e $(DESTDIR)/etc/seedbed/seedbed.yaml ] || \
	  { $(BUILD)/seedbed config default > $(DESTDIR)/etc/seedbed/seedbed.yaml && chmod 0640 $(DESTDIR)/etc/seedbed/seedbed.yaml; }
	install -d -m 0700 $(DESTDIR)/var/lib/seedbed
	if [ -d $(BUILD)/boot ]; then mkdir -p $(DESTDIR)/var/lib/seedbed/boot && cp -R $(BUILD)/boot/. $(DESTDIR)/var/lib/seedbed/boot/ && \
	  chmod -R u=rwX,go=rX $(DESTDIR)/var/lib/seedbed/boot; fi
	@echo "next: systemd-sysusers && systemd-tmpfiles --create && seedbed serve --check && systemctl enable --now seedbed"

# Systems where everything works but what an appliance does.
PORTS := windows-amd64 windows-arm64 darwin-amd64 darwin-arm64 freebsd-amd64 freebsd-arm64

programs: $(VENDOR)/.done ## build the program for Windows, macOS and FreeBSD into build/programs
	@for port in $(PORTS); do \
	  os=$${port%-*}; name=seedbed-$$port; [ $$os = windows ] && name=$$name.exe; \
	  CGO_ENABLED=0 GOOS=$$os GOARCH=$${port#*-} go build -trimpath -ldflags "-s -w" -o $(BUILD)/programs/$$name ./appliance; \
	done

initramfs: assets ## build the agent and its initramfs into build/boot
	go run ./initramfs/build initramfs

golden: setup ## build the golden Debian image that demo and tests deploy
	go run ./test-vm/golden/build

lab: setup build assets initramfs golden ## a lab network with an appliance and machines to play with, until interrupted
	go run ./test-vm/demo -hold

vet: $(VENDOR)/.done ## go vet
	go vet ./...

clean: ## remove what was built (downloads stay in the cache)
	rm -rf $(BUILD)

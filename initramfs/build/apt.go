package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// keyring signs Debian's archives; apt refuses what it did not sign.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// apt runs apt with its own sources, lists and cache under dir. The host's apt state is only read, for its mirror.
type apt struct {
	dir string
	log *slog.Logger
}

// options keep every path that apt writes inside dir.
func (a *apt) options() []string {
	set := func(k, v string) string { return k + "=" + v }
	var o []string
	for _, s := range []string{
		set("Dir::Etc::sourcelist", filepath.Join(a.dir, "sources.list")),
		set("Dir::Etc::sourceparts", "/nonexistent"),
		set("Dir::Etc::preferences", "/nonexistent"), set("Dir::Etc::preferencesparts", "/nonexistent"),
		set("Dir::State", a.dir), set("Dir::State::lists", filepath.Join(a.dir, "lists")),
		set("Dir::State::status", "/dev/null"), set("Dir::Cache", filepath.Join(a.dir, "cache")),
		set("APT::Sandbox::User", ""), set("APT::Architecture", "amd64"), set("APT::Architectures", "amd64"),
		set("Acquire::Languages", "none"), set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"),
		set("Acquire::Retries", "3"), set("APT::Update::Error-Mode", "any"),
	} {
		o = append(o, "-o", s)
	}
	return o
}

func (a *apt) run(ctx context.Context, dir, tool string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, tool, append(a.options(), args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	a.log.Debug("run", "tool", tool, "args", args)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", tool, args[0], err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// mirrors returns the URIs of Debian's archive and of its security archive ("" if the host has none) as the host's own
// apt sources name them. SEEDBED_MIRROR overrides the first, SEEDBED_SECURITY_MIRROR the second.
func mirrors(ctx context.Context) (debian, security string, err error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--no-release-info",
		"--format", "$(CREATED_BY) $(REPO_URI) $(RELEASE)", "Created-By: Packages").Output()
	if err != nil {
		return "", "", fmt.Errorf("ask apt for the host's mirror: %w", err)
	}
	debian, security = parseMirrors(string(out))
	if v := os.Getenv("SEEDBED_MIRROR"); v != "" {
		debian, security = v, ""
	}
	if v := os.Getenv("SEEDBED_SECURITY_MIRROR"); v != "" {
		security = v
	}
	if debian == "" {
		return "", "", errors.New("the host's apt sources name no Debian mirror; set SEEDBED_MIRROR to the base URL of one, the part before /dists")
	}
	return debian, security, nil
}

var debianRelease = regexp.MustCompile(`^(bullseye|bookworm|trixie|forky|sid|stable|testing|unstable)$`)

// parseMirrors picks from lines "Packages URI RELEASE ...".
func parseMirrors(lines string) (debian, security string) {
	for s := bufio.NewScanner(strings.NewReader(lines)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 3 {
			continue
		}
		uri, release := f[1], f[2]
		switch base, found := strings.CutSuffix(release, "-security"); {
		case found && debianRelease.MatchString(base) && security == "":
			security = strings.TrimSuffix(uri, "/")
		case debianRelease.MatchString(release) && debian == "":
			debian = strings.TrimSuffix(uri, "/")
		}
	}
	return debian, security
}

// update writes the sources and fetches the lists of packages.
func (a *apt) update(ctx context.Context) error {
	if !exists(keyring) {
		return fmt.Errorf("%s is missing; apt-get install debian-archive-keyring", keyring)
	}
	debian, security, err := mirrors(ctx)
	if err != nil {
		return err
	}
	var list strings.Builder
	line := func(uri, suite string) {
		fmt.Fprintf(&list, "deb [signed-by=%s] %s %s main non-free-firmware\n", keyring, uri, suite)
	}
	line(debian, suite)
	line(debian, suite+"-updates")
	if security != "" {
		line(security, suite+"-security")
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(list.String()), 0o644); err != nil {
		return err
	}
	_, err = a.run(ctx, "", "apt-get", "-q", "update")
	return err
}

// dependencies returns the names that the candidate of a package depends on.
func (a *apt) dependencies(ctx context.Context, pkg string) ([]string, error) {
	out, err := a.run(ctx, "", "apt-cache", "show", "--no-all-versions", pkg)
	if err != nil {
		return nil, err
	}
	for _, l := range strings.Split(string(out), "\n") {
		if deps, found := strings.CutPrefix(l, "Depends: "); found {
			var names []string
			for _, d := range strings.Split(deps, ",") {
				names = append(names, strings.Fields(d)[0])
			}
			return names, nil
		}
	}
	return nil, fmt.Errorf("package %s depends on nothing", pkg)
}

// Package is one downloaded Debian package.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	File    string `json:"file"` // in the cache's debs folder
	SHA256  string `json:"sha256"`
}

// fetch resolves the packages to their candidates and downloads into dir what it does not hold yet. Each file's SHA-256
// is the one in the signed lists.
func (a *apt) fetch(ctx context.Context, dir string, names []string) ([]Package, error) {
	var pkgs []Package
	for _, name := range names {
		p, err := a.candidate(ctx, name)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, p.File)
		if sum, _, err := sumFile(file); err == nil && sum == p.SHA256 {
			pkgs = append(pkgs, p)
			continue
		}
		a.log.Info("download", "package", p.Name, "version", p.Version)
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err // apt would take a damaged file for the right one
		}
		if _, err := a.run(ctx, dir, "apt-get", "-q", "download", p.Name+"="+p.Version); err != nil {
			return nil, err
		}
		sum, _, err := sumFile(file)
		if err != nil {
			return nil, err
		}
		if sum != p.SHA256 {
			return nil, fmt.Errorf("package %s has SHA-256 %s, the signed list says %s", p.File, sum, p.SHA256)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs, nil
}

// candidate returns what the signed lists say of the newest version of a package.
func (a *apt) candidate(ctx context.Context, name string) (Package, error) {
	out, err := a.run(ctx, "", "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return Package{}, err
	}
	p := Package{Name: name}
	var arch string
	for _, l := range strings.Split(string(out), "\n") {
		switch k, v, _ := strings.Cut(l, ": "); k {
		case "Version":
			p.Version = v
		case "Architecture":
			arch = v
		case "SHA256":
			p.SHA256 = v
		}
	}
	if p.Version == "" || arch == "" || len(p.SHA256) != 64 {
		return Package{}, fmt.Errorf("apt's description of package %s lacks its version, architecture or SHA-256", name)
	}
	p.File = fmt.Sprintf("%s_%s_%s.deb", name, strings.ReplaceAll(p.Version, ":", "%3a"), arch)
	return p, nil
}

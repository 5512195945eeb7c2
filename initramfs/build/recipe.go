package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// recipe makes the boot directory. Owned by one goroutine under the cache's lock.
type recipe struct {
	cache string // downloads and derived archives
	out   string // boot directory
	renew bool
	agent string
	log   *slog.Logger
}

// File is one file of the boot directory as manifest.json lists it.
type File struct {
	Name    string `json:"name"`    // "vmlinuz"
	Package string `json:"package"` // Debian package, or "seedbed" for what this program built
	Version string `json:"version"`
	Length  int64  `json:"length"` // bytes
	SHA256  string `json:"sha256"` // 64 hexadecimal digits
}

// manifest is manifest.json.
type manifest struct {
	Files []File `json:"files"`
}

const manifestName = "manifest.json"

func (r *recipe) debs() string { return filepath.Join(r.cache, "debs") }

// packages returns the resolved packages, all of them in the cache and whole. It asks the mirror when the cache has no
// full set or renew says so.
func (r *recipe) packages(ctx context.Context) ([]Package, error) {
	record := filepath.Join(r.cache, "packages.json")
	if pkgs, ok := r.cached(record); ok && !r.renew {
		return pkgs, nil
	}
	r.log.Info("asking Debian's mirror for packages", "suite", suite)
	a := &apt{dir: filepath.Join(r.cache, "apt"), log: r.log}
	if err := a.update(ctx); err != nil {
		return nil, err
	}
	deps, err := a.dependencies(ctx, kernelMeta)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.debs(), 0o755); err != nil {
		return nil, err
	}
	names := append(slices.Clone(deps[:1]), append(slices.Clone(bootPackages), firmwarePackages...)...)
	pkgs, err := a.fetch(ctx, r.debs(), names)
	if err != nil {
		return nil, err
	}
	return pkgs, writeJSON(record, pkgs)
}

// cached reads the record of the last resolution and checks its files.
func (r *recipe) cached(record string) ([]Package, bool) {
	b, err := os.ReadFile(record)
	if err != nil {
		return nil, false
	}
	var pkgs []Package
	if json.Unmarshal(b, &pkgs) != nil {
		return nil, false
	}
	for _, p := range pkgs {
		if sum, _, err := sumFile(filepath.Join(r.debs(), p.File)); err != nil || sum != p.SHA256 {
			r.log.Info("cached package is missing or damaged", "package", p.File)
			return nil, false
		}
	}
	for _, name := range append(slices.Clone(bootPackages), firmwarePackages...) {
		if findPackage(pkgs, name) == nil {
			return nil, false
		}
	}
	return pkgs, findPackage(pkgs, "linux-image-") != nil
}

// findPackage returns the package of that name, or whose name begins with it where it ends in "-"; nil if none.
func findPackage(pkgs []Package, name string) *Package {
	for i, p := range pkgs {
		if p.Name == name || strings.HasSuffix(name, "-") && strings.HasPrefix(p.Name, name) {
			return &pkgs[i]
		}
	}
	return nil
}

// assets puts the boot files into the boot directory.
func (r *recipe) assets(ctx context.Context) error {
	pkgs, err := r.packages(ctx)
	if err != nil {
		return err
	}
	var files []File
	for _, b := range bootFiles {
		p := findPackage(pkgs, b.pkg)
		deb, err := readDeb(ctx, filepath.Join(r.debs(), p.File), func(path string) bool { return path == b.path })
		if err != nil {
			return err
		}
		data, ok := deb.resolve(b.path)
		if !ok {
			return fmt.Errorf("package %s has no %s", p.File, b.path)
		}
		f, err := r.put(b.name, *p, data)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	set, err := r.kernel(ctx, pkgs)
	if err != nil {
		return err
	}
	kernel := findPackage(pkgs, "linux-image-")
	f, err := r.put("vmlinuz", *kernel, set.vmlinuz)
	if err != nil {
		return err
	}
	return r.record(append(files, f))
}

// put writes one file of the boot directory unless it is there already.
func (r *recipe) put(name string, p Package, data []byte) (File, error) {
	sum := sha256.Sum256(data)
	f := File{Name: name, Package: p.Name, Version: p.Version, Length: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	path := filepath.Join(r.out, name)
	if have, _, err := sumFile(path); err == nil && have == f.SHA256 {
		return f, nil
	}
	r.log.Info("wrote", "file", path, "bytes", f.Length, "package", p.Name, "version", p.Version)
	return f, writeFile(path, func(w io.Writer) error { _, err := w.Write(data); return err })
}

// record merges files into the boot directory's manifest.
func (r *recipe) record(files []File) error {
	path := filepath.Join(r.out, manifestName)
	var m manifest
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read %s: %w; delete it and run again", path, err)
	}
	for _, f := range files {
		m.Files = slices.DeleteFunc(m.Files, func(o File) bool { return o.Name == f.Name })
		m.Files = append(m.Files, f)
	}
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return writeJSON(path, m)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, func(w io.Writer) error { _, err := w.Write(append(b, '\n')); return err })
}

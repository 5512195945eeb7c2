package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// kernelSet is what machines need of one kernel package and the firmware packages.
type kernelSet struct {
	vmlinuz           []byte
	modules, firmware []byte // compressed archives
}

// recipeVersion changes when the archives made from the same packages and lists change.
const recipeVersion = "1"

// kernel returns the kernel set of the resolved packages, made once per set of packages and lists.
func (r *recipe) kernel(ctx context.Context, pkgs []Package) (*kernelSet, error) {
	dir := filepath.Join(r.cache, "kernel-"+recipeKey(pkgs))
	set := new(kernelSet)
	parts := []struct {
		name string
		data *[]byte
	}{{"vmlinuz", &set.vmlinuz}, {"modules.cpio.zst", &set.modules}, {"firmware.cpio.zst", &set.firmware}}
	complete := true
	for _, p := range parts {
		var err error
		if *p.data, err = os.ReadFile(filepath.Join(dir, p.name)); err != nil {
			complete = false
		}
	}
	if complete {
		return set, nil
	}
	set, err := r.makeKernel(ctx, pkgs)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for i, data := range [][]byte{set.vmlinuz, set.modules, set.firmware} {
		err := writeFile(filepath.Join(dir, parts[i].name), func(w io.Writer) error { _, err := w.Write(data); return err })
		if err != nil {
			return nil, err
		}
	}
	return set, nil
}

// recipeKey names the archives by everything that they are made from.
func recipeKey(pkgs []Package) string {
	h := sha256.New()
	fmt.Fprintln(h, recipeVersion)
	for _, p := range pkgs {
		if strings.HasPrefix(p.Name, "linux-image-") || strings.HasPrefix(p.Name, "firmware-") {
			fmt.Fprintln(h, p.Name, p.Version, p.SHA256)
		}
	}
	for _, s := range moduleSets {
		fmt.Fprintln(h, strings.Fields(s.names))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// makeKernel picks modules and firmware and compresses them.
func (r *recipe) makeKernel(ctx context.Context, pkgs []Package) (*kernelSet, error) {
	p := findPackage(pkgs, "linux-image-")
	r.log.Info("picking kernel modules", "package", p.Name)
	deb, err := readDeb(ctx, filepath.Join(r.debs(), p.File), func(name string) bool {
		return strings.HasPrefix(name, "boot/vmlinuz-") || strings.Contains(name, "lib/modules/")
	})
	if err != nil {
		return nil, err
	}
	t := &tree{release: strings.TrimPrefix(p.Name, "linux-image-"), files: map[string]string{}, builtin: map[string]bool{}}
	vmlinuz, ok := deb.files["boot/vmlinuz-"+t.release]
	if !ok {
		return nil, fmt.Errorf("package %s has no boot/vmlinuz-%s", p.File, t.release)
	}
	base := "usr/lib/modules/" + t.release + "/"
	t.load = func(file string) ([]byte, error) { return unpack(file, deb.files[base+file]) }
	for name := range deb.files {
		if file, found := strings.CutPrefix(name, base); found && strings.Contains(path.Base(file), ".ko") {
			t.files[canonicalName(file)] = file
		}
	}
	builtin := deb.files[base+"modules.builtin"]
	for _, l := range strings.Fields(string(builtin)) {
		t.builtin[canonicalName(l)] = true
	}
	var want []string
	for _, s := range moduleSets {
		want = append(want, strings.Fields(s.names)...)
	}
	mods, missing, err := t.pick(want)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		r.log.Warn("this kernel lacks modules of the list", "modules", missing)
	}
	modules, size, err := r.packModules(ctx, t.release, mods, builtin)
	if err != nil {
		return nil, err
	}
	firmware, err := r.packFirmware(ctx, pkgs, mods)
	if err != nil {
		return nil, err
	}
	r.log.Info("picked", "modules", len(mods), "bytes", size, "compressed", len(modules), "firmware", len(firmware))
	return &kernelSet{vmlinuz: vmlinuz, modules: modules, firmware: firmware}, nil
}

// packModules makes the archive of the modules with what kmodule and the agent's cold plug read.
func (r *recipe) packModules(ctx context.Context, release string, mods []*module, builtin []byte) ([]byte, int, error) {
	a := newArchive()
	dir := "lib/modules/" + release + "/"
	size := 0
	for _, m := range mods {
		a.add(dir+m.Path, 0o644, m.Data)
		size += len(m.Data)
	}
	a.add(dir+"modules.dep", 0o644, depFile(mods))
	a.add(dir+"modules.alias", 0o644, aliasFile(mods))
	a.add(dir+"modules.softdep", 0o644, softdepFile(mods))
	a.add(dir+"modules.builtin", 0o644, builtin)
	b, err := a.compress(ctx)
	return b, size, err
}

// packFirmware makes the archive of the firmware that the modules name, as far as Debian ships it.
func (r *recipe) packFirmware(ctx context.Context, pkgs []Package, mods []*module) ([]byte, error) {
	named := map[string]bool{}
	for _, m := range mods {
		for _, f := range m.Firmware {
			named[f] = true
		}
	}
	a, found := newArchive(), 0
	a.folder("lib/firmware")
	for _, name := range firmwarePackages {
		p := findPackage(pkgs, name)
		deb, err := readDeb(ctx, filepath.Join(r.debs(), p.File), func(s string) bool { return strings.Contains(s, "lib/firmware/") })
		if err != nil {
			return nil, err
		}
		for f := range named {
			if data, ok := deb.resolve("usr/lib/firmware/" + f); ok {
				a.add("lib/firmware/"+f, 0o644, data)
				delete(named, f)
				found++
			}
		}
	}
	var lacking []string
	for f := range named {
		lacking = append(lacking, f)
	}
	slices.Sort(lacking)
	r.log.Info("firmware", "found", found, "not shipped by these packages", strings.Join(lacking, " "))
	return a.compress(ctx)
}

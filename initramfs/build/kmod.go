package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"strings"
)

// moduleInfo is what a kernel module says about itself in its .modinfo section. Names have underscores.
type moduleInfo struct {
	Depends  []string // needed modules
	Softdeps []string // modules that it asks for before or after itself, where they exist
	Aliases  []string // modalias patterns
	Firmware []string // paths under /lib/firmware
}

// readModuleInfo reads the .modinfo section of an uncompressed module: strings "key=value", each ended by a zero byte
// (Linux, include/linux/moduleparam.h, __MODULE_INFO).
func readModuleInfo(ko []byte) (info moduleInfo, err error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return info, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return info, fmt.Errorf("no .modinfo section")
	}
	data, err := section.Data()
	if err != nil {
		return info, err
	}
	for _, field := range strings.Split(string(data), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					info.Depends = append(info.Depends, canonicalName(d))
				}
			}
		case "softdep":
			for _, d := range strings.Fields(value) {
				if !strings.HasSuffix(d, ":") {
					info.Softdeps = append(info.Softdeps, canonicalName(d))
				}
			}
		case "alias":
			info.Aliases = append(info.Aliases, value)
		case "firmware":
			info.Firmware = append(info.Firmware, value)
		}
	}
	return info, nil
}

// canonicalName returns a module's name as the kernel prints it, from a name or a path of a file.
func canonicalName(s string) string {
	s, _, _ = strings.Cut(path.Base(s), ".ko")
	return strings.ReplaceAll(s, "-", "_")
}

// module is one picked module.
type module struct {
	Path string // relative to the release's folder: "kernel/drivers/net/virtio_net.ko"
	Data []byte // uncompressed, its signature at the end
	moduleInfo
}

// tree is a kernel package's modules: files by canonical name, compressed as the package has them.
type tree struct {
	release string            // "6.12.117+deb13-amd64"
	files   map[string]string // canonical name -> path relative to the release's folder
	load    func(path string) ([]byte, error)
	builtin map[string]bool
}

// pick returns the wanted modules and all that they need, sorted by path, and the wanted names that this kernel neither
// has as a module nor built in.
func (t *tree) pick(want []string) (mods []*module, missing []string, err error) {
	picked := map[string]*module{}
	var add func(name string, must bool) error
	add = func(name string, must bool) error {
		if picked[name] != nil || t.builtin[name] {
			return nil
		}
		file, ok := t.files[name]
		if !ok {
			if must {
				missing = append(missing, name)
			}
			return nil
		}
		m := &module{Path: strings.TrimSuffix(file, path.Ext(file))}
		if strings.HasSuffix(file, ".ko") {
			m.Path = file
		}
		if m.Data, err = t.load(file); err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		if m.moduleInfo, err = readModuleInfo(m.Data); err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		picked[name] = m
		for _, d := range m.Depends {
			if t.files[d] == "" && !t.builtin[d] {
				return fmt.Errorf("module %s needs %s, which the kernel package does not have", name, d)
			}
			if err := add(d, true); err != nil {
				return err
			}
		}
		for _, d := range m.Softdeps {
			if err := add(d, false); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range want {
		if err := add(canonicalName(name), true); err != nil {
			return nil, nil, err
		}
	}
	for _, m := range picked {
		mods = append(mods, m)
	}
	slices.SortFunc(mods, func(a, b *module) int { return strings.Compare(a.Path, b.Path) })
	return mods, missing, nil
}

// depFile renders modules.dep (man modules.dep): each module with everything it needs, directly or not, the nearest
// first.
func depFile(mods []*module) []byte {
	byName := map[string]*module{}
	for _, m := range mods {
		byName[canonicalName(m.Path)] = m
	}
	var out bytes.Buffer
	for _, m := range mods {
		var all []string
		var walk func(*module)
		walk = func(m *module) {
			for _, name := range m.Depends {
				d := byName[name]
				if d == nil { // built in
					continue
				}
				// A module that is needed again deeper moves behind, so that loading from the end works.
				all = slices.DeleteFunc(all, func(p string) bool { return p == d.Path })
				all = append(all, d.Path)
				walk(d)
			}
		}
		walk(m)
		fmt.Fprintf(&out, "%s:", m.Path)
		for _, p := range all {
			fmt.Fprintf(&out, " %s", p)
		}
		fmt.Fprintln(&out)
	}
	return out.Bytes()
}

// aliasFile renders modules.alias: "alias PATTERN MODULE", a line each.
func aliasFile(mods []*module) []byte {
	var out bytes.Buffer
	for _, m := range mods {
		for _, a := range m.Aliases {
			fmt.Fprintf(&out, "alias %s %s\n", a, canonicalName(m.Path))
		}
	}
	return out.Bytes()
}

// softdepFile renders modules.softdep as "MODULE OTHER OTHER": what to load together with it.
func softdepFile(mods []*module) []byte {
	present := map[string]bool{}
	for _, m := range mods {
		present[canonicalName(m.Path)] = true
	}
	var out bytes.Buffer
	for _, m := range mods {
		for _, d := range m.Softdeps {
			if present[d] {
				fmt.Fprintf(&out, "softdep %s pre: %s\n", canonicalName(m.Path), d)
			}
		}
	}
	return out.Bytes()
}

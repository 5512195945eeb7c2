package main

import (
	"bufio"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/u-root/u-root/pkg/kmodule"
)

// modules loads drivers for the devices that the kernel shows. Safe for concurrent use.
type modules struct {
	root string

	mu      sync.Mutex // guards everything below
	prober  *kmodule.Prober
	aliases map[string][]alias // by what stands before the first colon: "pci"
	soft    map[string][]string
	seen    map[string]bool // modaliases
	tried   map[string]bool // modules
}

// alias says that a module drives the devices whose modalias matches a pattern of *, ? and [...].
type alias struct{ literal, pattern, module string }

// openModules reads the lists of the modules that the initramfs carries for a kernel.
func openModules(root, release string) (*modules, error) {
	p, err := kmodule.NewProber(kmodule.ProbeOpts{RootDir: root, KVer: release})
	if err != nil {
		return nil, err
	}
	m := &modules{root: root, prober: p, aliases: map[string][]alias{}, soft: map[string][]string{}, seen: map[string]bool{}, tried: map[string]bool{}}
	dir := filepath.Join(root, "lib/modules", release)
	err = eachLine(filepath.Join(dir, "modules.alias"), func(f []string) {
		if len(f) == 3 && f[0] == "alias" {
			bus := strings.TrimRight(busOf(f[1]), "*") // "acpi*:VMBUS:*" means what acpi names, on whatever bus
			literal := f[1]
			if i := strings.IndexAny(literal, `*?[\`); i >= 0 {
				literal = literal[:i]
			}
			m.aliases[bus] = append(m.aliases[bus], alias{literal, f[1], f[2]})
		}
	})
	if err != nil {
		return nil, err
	}
	return m, eachLine(filepath.Join(dir, "modules.softdep"), func(f []string) {
		if len(f) == 4 && f[0] == "softdep" {
			m.soft[f[1]] = append(m.soft[f[1]], f[3])
		}
	})
}

// busOf returns what stands before the first colon of a modalias or a pattern.
func busOf(modalias string) string {
	bus, _, _ := strings.Cut(modalias, ":")
	return bus
}

func eachLine(file string, do func(fields []string)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		do(strings.Fields(s.Text()))
	}
	return s.Err()
}

// rounds bounds how often new devices are looked for: a controller's driver shows its ports, their drivers the disks.
const rounds = 6

// coldPlug loads the drivers of all devices that are new since the last call, and of the devices that show up by that.
// It returns how many modules it loaded by name.
func (m *modules) coldPlug(log *slog.Logger) (loaded int) {
	for range rounds {
		found := m.wanted()
		if len(found) == 0 {
			break
		}
		m.load(log, found...)
		loaded += len(found)
	}
	return loaded
}

// wanted returns the modules, not tried before, for devices that were not seen before.
func (m *modules) wanted() (found []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := map[string]bool{}
	_ = filepath.WalkDir(filepath.Join(m.root, "sys/devices"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "modalias" {
			return nil // devices come and go while we look
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil
		}
		device := strings.TrimSpace(string(b))
		if device == "" || m.seen[device] {
			return nil
		}
		m.seen[device] = true
		for _, module := range m.match(device) {
			if !m.tried[module] && !want[module] {
				want[module] = true
				found = append(found, module)
			}
		}
		return nil
	})
	return found
}

// match returns the modules that drive a device. The caller holds mu.
func (m *modules) match(device string) (list []string) {
	for _, a := range m.aliases[busOf(device)] {
		if !strings.HasPrefix(device, a.literal) {
			continue
		}
		// path.Match's star stops at slashes, which no bus but the device tree has.
		if ok, err := path.Match(a.pattern, device); err == nil && ok {
			list = append(list, a.module)
		}
	}
	return list
}

// load loads modules with what they need. A driver that does not load is a warning: another one may serve.
func (m *modules) load(log *slog.Logger, names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		for _, n := range append(m.soft[name], name) {
			if m.tried[n] {
				continue
			}
			m.tried[n] = true
			if err := m.prober.Probe(n, ""); err != nil {
				log.Debug("driver not loaded", "module", n, "err", err)
			}
		}
	}
}

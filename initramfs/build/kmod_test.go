package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/kmodule"
)

// fakeModule compiles an object with a .modinfo section, which is all of a module that the recipe reads.
func fakeModule(t *testing.T, info ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("as"); err != nil {
		t.Fatal("the assembler is missing: apt-get install binutils")
	}
	var src strings.Builder
	src.WriteString(".section .modinfo,\"a\"\n")
	for _, s := range info {
		src.WriteString(".asciz \"" + s + "\"\n")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "m.o")
	cmd := exec.Command("as", "-o", file, "-")
	cmd.Stdin = strings.NewReader(src.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as: %v %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fakeTree(t *testing.T) *tree {
	data := map[string][]byte{
		"kernel/net/nic.ko":    fakeModule(t, "name=nic", "depends=bus,phy-core", "alias=pci:v00001AF4d*", "firmware=nic/fw.bin", "softdep=pre: extra post: gone"),
		"kernel/bus/bus.ko":    fakeModule(t, "name=bus", "depends=ring"),
		"kernel/bus/ring.ko":   fakeModule(t, "name=ring", "depends="),
		"kernel/phy-core.ko":   fakeModule(t, "name=phy_core", "depends=ring,built"),
		"kernel/extra.ko":      fakeModule(t, "name=extra", "depends="),
		"kernel/unrelated.ko":  fakeModule(t, "name=unrelated", "depends="),
		"kernel/net/orphan.ko": fakeModule(t, "name=orphan", "depends=nowhere"),
	}
	tr := &tree{release: "1.2.3", files: map[string]string{}, builtin: map[string]bool{"built": true},
		load: func(f string) ([]byte, error) { return data[f], nil }}
	for f := range data {
		tr.files[canonicalName(f)] = f
	}
	return tr
}

func TestPickTakesDependenciesAndSoftDependencies(t *testing.T) {
	mods, missing, err := fakeTree(t).pick([]string{"nic", "built", "nothere"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range mods {
		names = append(names, canonicalName(m.Path))
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "bus extra nic phy_core ring" {
		t.Errorf("picked %s", got)
	}
	if !slices.Equal(missing, []string{"nothere"}) {
		t.Errorf("missing %v", missing)
	}
	if _, _, err := fakeTree(t).pick([]string{"orphan"}); err == nil {
		t.Error("a module whose dependency is absent was picked")
	}
	if got := string(aliasFile(mods)); got != "alias pci:v00001AF4d* nic\n" {
		t.Errorf("aliases %q", got)
	}
}

// TestModulesDepLoadsInOrder lets u-root's kmodule, which loads them in the machine, read our modules.dep.
func TestModulesDepLoadsInOrder(t *testing.T) {
	mods, _, err := fakeTree(t).pick([]string{"nic"})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "lib/modules/1.2.3")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), depFile(mods), 0o644); err != nil {
		t.Fatal(err)
	}
	order := make(chan string, 16)
	err = kmodule.ProbeOptions("nic", "", kmodule.ProbeOpts{RootDir: root, KVer: "1.2.3", IgnoreProcMods: true,
		DryRunCB: func(p string) { order <- canonicalName(p) }})
	if err != nil {
		t.Fatal(err)
	}
	close(order)
	var got []string
	for m := range order {
		got = append(got, m)
	}
	at := func(m string) int { return slices.Index(got, m) }
	if len(got) != 4 || at("ring") != 0 || at("nic") != 3 {
		t.Errorf("loaded in order %v", got)
	}
}

func TestParseMirrors(t *testing.T) {
	const lines = `Packages https://packages.example.com/apt/ cloud-sdk-bookworm
Packages http://mirror.example.org/debian/ bookworm
Packages http://mirror.example.org/debian/ bookworm-updates
Packages http://mirror.example.org/debian-security/ bookworm-security
Packages https://other.example.org/node_20.x/ nodistro
`
	debian, security := parseMirrors(lines)
	if debian != "http://mirror.example.org/debian" || security != "http://mirror.example.org/debian-security" {
		t.Errorf("%q %q", debian, security)
	}
}

func TestMirrorCanBeOverridden(t *testing.T) {
	t.Setenv("SEEDBED_MIRROR", "http://10.0.0.1/debian")
	debian, security, err := mirrors(t.Context())
	if err != nil || debian != "http://10.0.0.1/debian" || security != "" {
		t.Errorf("%q %q %v", debian, security, err)
	}
}

package images_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// ban keeps packages from importing others, directly or through third ones. Names are import paths below the module
// ("images/swarm") or outside ("database/sql"); a trailing "/..." takes in what lies below.
type ban struct {
	from   string
	never  []string
	but    []string // exceptions to never, exact
	except []string // packages of from that are free, with what lies below
	reason string
}

var bans = []ban{
	{from: "images/...", never: []string{"appliance/...", "initramfs/...", "bootloader-configs/...", "test-vm/..."},
		reason: "the format and the swarm know no server: programs on other systems, Windows among them, use them alone"},
	{from: "images", never: []string{"images/..."}, but: []string{"images"},
		reason: "the vocabulary is what all others speak; it can depend on none of them"},
	{from: "initramfs/...", never: []string{"appliance/..."}, but: []string{"appliance/job"},
		reason: "agent and appliance share the contract of package job and nothing else"},
	{from: "initramfs/...", except: []string{"initramfs/build"},
		never:  []string{"database/sql", "modernc.org/...", "github.com/jackc/...", "github.com/pressly/...", "gocloud.dev/..."},
		reason: "records and object storage have no place in an initramfs of 40 MB and a machine of 1 GiB"},
	{from: "images/swarm", never: []string{"images/layout", "images/repository", "images/capture", "images/fsmap", "images/parttable", "initramfs/disk"},
		reason: "the swarm moves pieces through its own Storage contract and knows neither disks nor repositories"},
	{from: "images/peerwire", never: []string{"images/swarm", "images/layout", "images/repository", "images/torrent", "images/announce"},
		reason: "a pure codec knows no features"},
	{from: "images/announce", never: []string{"images/swarm", "images/layout", "images/repository"},
		reason: "protocol packages know no features"},
	{from: "images/layout", never: []string{"net", "net/http", "images/swarm", "images/repository"},
		reason: "layout is pure arithmetic"},
	{from: "images/restore", never: []string{"net", "net/http", "images/swarm", "images/repository", "images/capture"},
		reason: "a disk is held against an image wherever its tiles come from: a repository, a swarm, a machine's memory"},
	{from: "appliance/fleet", never: []string{"appliance/store", "appliance/api", "database/sql"},
		reason: "fleet declares the records interface that store implements"},
	{from: "appliance/upload", never: []string{"appliance/api", "appliance/store", "database/sql", "net/http"},
		reason: "what a capture may do is decided apart from how its requests travel"},
	{from: "appliance/dhcp", never: []string{"appliance/fleet", "appliance/store", "appliance/api", "appliance/seed"},
		reason: "protocol packages know no features"},
	{from: "appliance/tftp", never: []string{"appliance/fleet", "appliance/store", "appliance/api", "appliance/seed"},
		reason: "protocol packages know no features"},
	{from: "appliance/boot", never: []string{"appliance/fleet", "appliance/store", "appliance/api", "appliance/seed"},
		reason: "boot declares what it asks of the fleet"},
	{from: "appliance/bootdoctor", never: []string{"appliance/..."}, but: []string{"appliance/bootdoctor", "appliance/job"},
		reason: "the boot doctor is a pure function of what was seen; others see, keep and show it"},
	{from: "appliance/monitor", never: []string{"appliance/store", "appliance/api", "appliance/console", "database/sql"},
		reason: "the monitor paints from what fleet and swarm tell; others show it"},
	{from: "appliance/journal", never: []string{"appliance/store", "appliance/api", "database/sql"},
		reason: "a journal is made of what fleet hands out; who asks for it, and how, is no matter of it"},
	{from: "appliance/console", never: []string{"appliance/store", "database/sql"},
		reason: "the console holds no truth of its own: it goes through fleet"},
	{from: "appliance/job", never: []string{"appliance/..."}, but: []string{"appliance/job"},
		reason: "the contract between agent and appliance depends on neither"},
}

const module = "seedbed/"

// matches reports whether an import path is what a pattern names.
func matches(pattern, path string) bool {
	prefix, below := strings.CutSuffix(pattern, "/...")
	for _, p := range []string{prefix, module + prefix} {
		if path == p || below && strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

type listed struct {
	ImportPath string
	Deps       []string
}

// packages lists the module's packages with all that they import, as a program for Linux links them.
func packages(t *testing.T) (list []listed) {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Deps", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=linux")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func TestImportsPointOneWay(t *testing.T) {
	list := packages(t)
	for _, b := range bans {
		seen := false
		for _, p := range list {
			free := func(s string) bool { return matches(s+"/...", p.ImportPath) }
			if !matches(b.from, p.ImportPath) || slices.ContainsFunc(b.except, free) {
				continue
			}
			seen = true
			for _, dep := range p.Deps {
				is := func(s string) bool { return matches(s, dep) }
				if slices.ContainsFunc(b.never, is) && !slices.ContainsFunc(b.but, is) {
					t.Errorf("%s imports %s: %s", p.ImportPath, dep, b.reason)
				}
			}
		}
		if !seen {
			t.Errorf("the ban on %s concerns no package; was it renamed?", b.from)
		}
	}
}

func TestImagesBuildForWindows(t *testing.T) {
	cmd := exec.Command("go", "build", "./...")
	cmd.Env = append(os.Environ(), "GOOS=windows", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("GOOS=windows go build ./images/...: %v\n%s", err, out)
	}
}

func TestPatternsNameWhatTheySay(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"images", "seedbed/images", true}, {"images", "seedbed/images/swarm", false}, {"images/...", "seedbed/images", true},
		{"images/...", "seedbed/images/swarm", true}, {"images/...", "seedbed/imagesque", false}, {"gocloud.dev/...", "gocloud.dev/blob", true},
		{"net", "net", true}, {"net", "net/http", false}, {"appliance/...", "seedbed/appliance/job", true},
	} {
		if got := matches(c.pattern, c.path); got != c.want {
			t.Errorf("%s names %s: %v, want %v", c.pattern, c.path, got, c.want)
		}
	}
}

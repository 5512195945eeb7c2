package boot

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"seedbed/appliance/dhcp"
	"seedbed/appliance/tftp"
)

// fuzzBench is a bench whose boot files have a secret beside and below them.
func fuzzBench(f *testing.F) (b *bench, secret string) {
	f.Helper()
	secret = "what is not for machines"
	dir := bootDir(f)
	for _, path := range []string{filepath.Join(dir, "secret"), filepath.Join(dir, "..", "secret")} {
		if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	files, err := OpenFiles(dir)
	if err != nil {
		f.Fatal(err)
	}
	b = newBench(f, Assignment{Run: RunAgent})
	b.cfg.Files = files
	return b, secret
}

// Whatever a machine asks for, by HTTP or TFTP: it gets a boot file, a script without words of its own, or an error.
func FuzzAsked(f *testing.F) {
	b, secret := fuzzBench(f)
	for _, path := range []string{"/boot.ipxe", "/grub/machine.cfg", "/boot/vmlinuz", "/525400770010/shimx64.efi", "/../secret", `/..\secret`, "/boot/..%2fsecret", "//secret", "/\x00", "/torrents/x"} {
		f.Add(path, "52:54:00:77:00:10", "efi")
	}
	f.Add("/boot.ipxe", "52:54:00:77:00:10\necho owned", "pcbios\necho owned")
	f.Fuzz(func(t *testing.T, path, mac, platform string) {
		b.fleet.sightings = nil
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = &url.URL{Path: path, RawQuery: url.Values{"mac": {mac}, "platform": {platform}, "secure": {platform}}.Encode()}
		r.RemoteAddr = netip.AddrPortFrom(machineAddr, 4000).String()
		w := httptest.NewRecorder()
		b.Handler().ServeHTTP(w, r)
		if body := w.Body.String(); strings.Contains(body, secret) || w.Code == http.StatusOK && len(mac) > 20 && strings.Contains(body, mac) {
			t.Errorf("%d %s", w.Code, body)
		}
		file, err := b.OpenTFTP(context.Background(), tftp.Request{Name: path, Client: netip.AddrPortFrom(machineAddr, 4000), Local: appliance})
		if err != nil {
			return
		}
		var all bytes.Buffer
		if _, err := all.ReadFrom(file); err != nil || bytes.Contains(all.Bytes(), []byte(secret)) {
			t.Errorf("%v: %s", err, all.Bytes())
		}
	})
}

var comments = regexp.MustCompile(`(?m)^#.*$`)

// Whatever comes to the DHCP port: the answer, where there is one, parses and names a file of the boot server's.
func FuzzAnswered(f *testing.F) {
	b, _ := fuzzBench(f)
	list, err := filepath.Glob("../dhcp/testdata/*.hex")
	if err != nil || len(list) == 0 {
		f.Fatalf("packets of real firmware: %v, %v", list, err)
	}
	for _, path := range list {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		packet, err := hex.DecodeString(strings.ReplaceAll(comments.ReplaceAllString(string(text), ""), "\n", ""))
		if err != nil {
			f.Fatalf("%s: %v", path, err)
		}
		f.Add(packet, 67)
	}
	d, err := dhcpv4.NewDiscovery([]byte{0x52, 0x54, 0, 0x77, 0, 0x10}, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.ToBytes(), 67)
	f.Add(d.ToBytes(), 4011)
	f.Fuzz(func(t *testing.T, packet []byte, port int) {
		r, m, err := dhcp.Decode(packet, port, machineAddr, appliance)
		if err != nil {
			return
		}
		b.fleet.sightings = nil
		answer := b.AnswerDHCP(context.Background(), r)
		reply, err := dhcp.Reply(m, r, answer)
		if err != nil || reply == nil {
			return
		}
		if _, err := dhcpv4.FromBytes(reply.ToBytes()); err != nil {
			t.Errorf("the answer does not parse: %v", err)
		}
		for _, c := range answer.File {
			if c < ' ' || c > '~' {
				t.Errorf("the file is %q", answer.File)
			}
		}
	})
}

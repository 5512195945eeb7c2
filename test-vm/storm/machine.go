package storm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// machine is one simulated client, at work on one goroutine.
type machine struct {
	room   *room
	mac    [6]byte
	uuid   [16]byte
	uefi   bool
	hash   bool // of kernel and initramfs
	files  *Files
	script scriptCheck

	again  Repeats
	bytes  int64
	took   [phases]time.Duration
	booted time.Duration
	err    error
}

// scriptCheck says whether a script is the one that the machine with this MAC, of that firmware, is to get.
type scriptCheck func(text string, mac net.HardwareAddr, uefi bool) error

func (m *machine) String() string {
	firmware := "BIOS"
	if m.uefi {
		firmware = "UEFI"
	}
	return fmt.Sprintf("%s (%s)", net.HardwareAddr(m.mac[:]), firmware)
}

// macOf is that of client j of room i.
func macOf(i, j int) [6]byte { return [6]byte{0x52, 0x54, 0, 0x76, byte(16 + i), byte(1 + j)} }

// machines are the clients: every second one has UEFI firmware.
func (n *network) machines(c Config, files *Files, check scriptCheck) (list []*machine) {
	for k := range c.Clients {
		i, j := k%len(n.rooms), k/len(n.rooms)
		m := &machine{room: n.rooms[i], mac: macOf(i, j), uefi: (i+j)%2 == 1, files: files, script: check, hash: c.HashEach <= 1 || k%c.HashEach == 0}
		copy(m.uuid[:], "seedbed storm")
		binary.BigEndian.PutUint16(m.uuid[14:], uint16(k+1))
		list = append(list, m)
	}
	return list
}

// boot takes the machine from its firmware to the point where it would jump into the kernel.
func (m *machine) boot(ctx context.Context) error {
	if m.uefi {
		return m.bootUEFI(ctx)
	}
	return m.bootBIOS(ctx)
}

// bootBIOS: the card's firmware loads iPXE, which asks again and gets the URL of a script.
func (m *machine) bootBIOS(ctx context.Context) error {
	l, err := m.exchange(ctx, biosFirmware)
	if err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	if err := m.loader(ctx, biosReader, l, l.file, "undionly.kpxe"); err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	if l, err = m.exchange(ctx, biosIPXE); err != nil {
		return fmt.Errorf("iPXE: %w", err)
	}
	u, err := url.Parse(l.file)
	if err != nil || u.Scheme != "http" {
		return fmt.Errorf("iPXE: want the URL of a script, not %q", l.file)
	}
	from, err := netip.ParseAddr(u.Host)
	if err != nil {
		return fmt.Errorf("iPXE: %w", err)
	}
	w := &web{m: m, own: l.addr, agent: "iPXE/1.21.1+git20220113", keep: true}
	defer w.close()
	return m.run(ctx, w, from, u.RequestURI(), ipxeFile)
}

// bootUEFI: firmware with Secure Boot loads shim, shim GRUB, GRUB its start script, all by TFTP; GRUB does the rest over HTTP.
func (m *machine) bootUEFI(ctx context.Context) error {
	l, err := m.exchange(ctx, uefiFirmware)
	if err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	if err := m.loader(ctx, uefiReader, l, l.file, "shimx64.efi"); err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	if err := m.loader(ctx, uefiReader, l, path.Join(path.Dir(l.file), "grubx64.efi"), "grubx64.efi"); err != nil {
		return fmt.Errorf("shim: %w", err)
	}
	start, err := m.load(ctx, grubReader, l.from, l.addr, "/grub/grub.cfg")
	if err != nil {
		return fmt.Errorf("GRUB: %w", err)
	}
	found := grubFile.FindSubmatch(start)
	if found == nil {
		return fmt.Errorf("GRUB: its start script names no other one: %q", start)
	}
	from, err := netip.ParseAddr(string(found[1]))
	if err != nil {
		return fmt.Errorf("GRUB: %w", err)
	}
	at := strings.NewReplacer("$net_default_mac", net.HardwareAddr(m.mac[:]).String(), "$secure", "on").Replace(string(found[2]))
	return m.run(ctx, &web{m: m, own: l.addr, agent: "GRUB 2.12"}, from, at, grubFile)
}

// loader loads a program and checks it.
func (m *machine) loader(ctx context.Context, r reader, l lease, at, name string) error {
	b, err := m.load(ctx, r, l.from, l.addr, at)
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != m.files.sums[name] {
		return fmt.Errorf("%s by TFTP: %d bytes that are not those of %s", at, len(b), name)
	}
	return nil
}

// Files that scripts name: iPXE's URLs, GRUB's device and path.
var (
	ipxeFile = regexp.MustCompile(`http://([0-9.]+)(/boot/\S+)`)
	grubFile = regexp.MustCompile(`\(http,([0-9.]+)\)(/[^" ]+)`)
)

// run loads the machine's script and what it names.
func (m *machine) run(ctx context.Context, w *web, from netip.Addr, at string, names *regexp.Regexp) error {
	began := time.Now()
	var script bytes.Buffer
	if _, err := w.get(ctx, from, at, &script); err != nil {
		return err
	}
	m.took[phaseScript] = time.Since(began)
	if err := m.script(script.String(), m.mac[:], m.uefi); err != nil {
		return err
	}
	began = time.Now()
	files := names.FindAllStringSubmatch(script.String(), 3)
	if len(files) != 3 {
		return errors.New("the script does not name a kernel, an initramfs and a token")
	}
	for _, f := range files {
		from, err := netip.ParseAddr(f[1])
		if err != nil {
			return err
		}
		switch path, _, _ := strings.Cut(f[2], "?"); path {
		case "/boot/vmlinuz":
			err = w.file(ctx, from, f[2], "vmlinuz", m.hash)
		case "/boot/initramfs":
			err = w.file(ctx, from, f[2], "initramfs.cpio.zst", m.hash)
		case "/boot/token":
			err = m.token(ctx, w, from, f[2])
		default:
			err = fmt.Errorf("the script names %s", f[0])
		}
		if err != nil {
			return err
		}
	}
	m.took[phaseFiles] = time.Since(began)
	return nil
}

// token loads the second initrd: a cpio archive ("newc") with a file of its own for each boot.
func (m *machine) token(ctx context.Context, w *web, from netip.Addr, at string) error {
	var b bytes.Buffer
	if _, err := w.get(ctx, from, at, &b); err != nil {
		return err
	}
	if !bytes.HasPrefix(b.Bytes(), []byte("070701")) || !bytes.Contains(b.Bytes(), []byte("TRAILER!!!")) {
		return fmt.Errorf("http://%s%s is no archive of %d bytes", from, at, b.Len())
	}
	return nil
}

// ownCPU returns the seconds that this process used.
func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

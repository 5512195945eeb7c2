package golden

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// suite is the Debian release of the system: the one whose kernel, shim and GRUB the appliance serves too.
const suite = "trixie"

// packages are what the system has beyond Debian's minimal base.
var packages = []string{"systemd-sysv", "udev", "linux-image-cloud-amd64", "initramfs-tools", "zstd", "iproute2"}

// extras are packages of which only files are used: what the ESP holds, and the tiny system's only program.
var extras = []string{"shim-signed", "grub-efi-amd64-signed", "busybox-static"}

// excluded are paths that no test looks at and that would only travel.
var excluded = []string{"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*",
	"/usr/share/bug/*", "/usr/lib/udev/hwdb.d/*"}

// root is what was downloaded: files in one cache directory.
type root struct{ dir string }

func (r root) tar() string           { return filepath.Join(r.dir, "root.tar.zst") }
func (r root) extra(p string) string { return filepath.Join(r.dir, "extras", p) }
func (r root) shim() string          { return r.extra("usr/lib/shim/shimx64.efi.signed") }
func (r root) mokManager() string    { return r.extra("usr/lib/shim/mmx64.efi.signed") }
func (r root) grub() string          { return r.extra("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed") }
func (r root) busybox() string       { return r.extra("usr/bin/busybox") }
func (r root) complete() (string, bool) {
	for _, f := range []string{r.tar(), r.shim(), r.grub(), r.busybox()} {
		if _, err := os.Stat(f); err != nil {
			return f, false
		}
	}
	return "", true
}

// downloadRoot makes the system's files with mmdebstrap, verified by apt, once per recipe: afterwards no network is
// needed.
func downloadRoot(ctx context.Context, c Config) (root, error) {
	r := root{filepath.Join(c.Cache, "golden", recipe("root.go", "files")[:16])}
	if _, ok := r.complete(); ok {
		return r, nil
	}
	mirror, err := c.mirror(ctx)
	if err != nil {
		return r, err
	}
	if err := os.MkdirAll(filepath.Dir(r.dir), 0o755); err != nil {
		return r, err
	}
	tmp := root{r.dir + fmt.Sprintf(".tmp%d", os.Getpid())}
	defer os.RemoveAll(tmp.dir)
	if err := os.MkdirAll(filepath.Join(tmp.dir, "debs"), 0o755); err != nil {
		return r, err
	}
	for _, name := range []string{"essential.sh", "customize.sh"} {
		b, err := sources.ReadFile("files/" + name)
		if err != nil {
			return r, err
		}
		if err := os.WriteFile(filepath.Join(tmp.dir, name), b, 0o755); err != nil {
			return r, err
		}
	}
	c.Log.Info("downloading Debian for the golden image", "suite", suite, "mirror", mirror)
	if _, err := run(ctx, "mmdebstrap", mmdebstrapArgs(tmp, mirror, c.aptOptions(ctx))...); err != nil {
		return r, fmt.Errorf("golden image: %w", err)
	}
	debs, err := filepath.Glob(filepath.Join(tmp.dir, "debs", "*.deb"))
	if err != nil {
		return r, err
	}
	for _, deb := range debs {
		if _, err := run(ctx, "dpkg", "-x", deb, filepath.Join(tmp.dir, "extras")); err != nil {
			return r, err
		}
	}
	if missing, ok := tmp.complete(); !ok {
		return r, fmt.Errorf("golden image: the Debian packages %s did not bring %s", strings.Join(extras, ", "), missing)
	}
	if err := os.RemoveAll(filepath.Join(tmp.dir, "debs")); err != nil {
		return r, err
	}
	if err := os.RemoveAll(r.dir); err != nil { // an incomplete one
		return r, err
	}
	return r, os.Rename(tmp.dir, r.dir)
}

func mmdebstrapArgs(tmp root, mirror string, aptOptions []string) []string {
	args := []string{"--mode=root", "--variant=minbase", "--architectures=amd64", "--include=" + strings.Join(packages, ","),
		`--aptopt=Apt::Install-Recommends "false"`}
	for _, o := range aptOptions {
		args = append(args, "--aptopt="+o)
	}
	for _, p := range excluded {
		args = append(args, "--dpkgopt=path-exclude="+p)
	}
	return append(args,
		"--essential-hook="+filepath.Join(tmp.dir, "essential.sh")+` "$1"`,
		"--customize-hook="+filepath.Join(tmp.dir, "customize.sh")+` "$1"`,
		fmt.Sprintf(`--customize-hook=cd %s/debs && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq -o APT::Sandbox::User=root download %s`,
			tmp.dir, strings.Join(extras, " ")),
		suite, tmp.tar(), "deb "+mirror+" "+suite+" main")
}

// mirror returns Config.Mirror, else $SEEDBED_MIRROR, else where the host's own apt takes Debian from.
func (c Config) mirror(ctx context.Context) (string, error) {
	if c.Mirror != "" {
		return c.Mirror, nil
	}
	if m := os.Getenv("SEEDBED_MIRROR"); m != "" {
		return m, nil
	}
	out, err := run(ctx, "apt-get", "indextargets", "--format", "$(SITE) $(SUITE) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		w := strings.Fields(line)
		if len(w) >= 3 && strings.HasSuffix(strings.TrimSuffix(w[0], "/"), "/debian") {
			return strings.TrimSuffix(w[0], "/"), nil
		}
	}
	return "", fmt.Errorf("golden image: the host's apt names no Debian mirror; set SEEDBED_MIRROR")
}

// aptOptions passes on how the host's apt reaches its mirror.
func (c Config) aptOptions(ctx context.Context) (options []string) {
	out, err := run(ctx, "apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(out) {
		if line = bytes.TrimRight(bytes.TrimSpace(line), ";"); len(line) > 0 && !bytes.HasSuffix(line, []byte(` ""`)) {
			options = append(options, string(line))
		}
	}
	return options
}

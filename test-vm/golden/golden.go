// Package golden builds the disk images which the virtual lab deploys: a small Debian that boots on BIOS, UEFI and UEFI
// with Secure Boot, and a tiny system with the same partitions. Nothing is mounted and no loop device is used.
package golden

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kind is which of the two systems an image holds.
type Kind string

const (
	// Debian is Debian 13 with systemd; some 200 MB used.
	Debian Kind = "debian"
	// Mini is the same kernel with busybox and a file of random bytes; some 110 MB used.
	Mini Kind = "mini"
)

// LoginPrompt is what both systems print on the first serial port when they are up.
const LoginPrompt = "golden login:"

// Config says where things are kept. The zero value downloads into the user's cache and builds under build/golden.
type Config struct {
	// Dir receives the images; empty means build/golden.
	Dir string
	// Cache keeps what was downloaded, by recipe; empty means CacheDir's answer.
	Cache string
	// Mirror is the base URL of a Debian mirror, the part before /dists; empty means the one of the host's apt.
	Mirror string
	Log    *slog.Logger // nil discards
}

// CacheDir returns where downloads live: $SEEDBED_CACHE, else seedbed in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("SEEDBED_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache directory: %w (set SEEDBED_CACHE)", err)
	}
	return filepath.Join(dir, "seedbed"), nil
}

// Build returns the path of the raw, sparse image of the given kind, building what is missing. A second call with the
// same recipe neither downloads nor writes anything. Needs root. One call at a time for one Config.
func Build(ctx context.Context, kind Kind, c Config) (string, error) {
	if err := c.complete(); err != nil {
		return "", err
	}
	want := recipe(".")
	image := filepath.Join(c.Dir, string(kind)+".img")
	stamp := image + ".recipe"
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		if _, err := os.Stat(image); err == nil {
			return image, nil
		}
	}
	if os.Geteuid() != 0 {
		return "", errors.New("golden image: only root can build it, since its files belong to several users; run it as root")
	}
	if err := checkTools(); err != nil {
		return "", err
	}
	root, err := downloadRoot(ctx, c)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", err
	}
	c.Log.Info("assembling golden image", "kind", kind, "file", image)
	if err := assemble(ctx, kind, root, image); err != nil {
		return "", fmt.Errorf("golden image %s: %w", kind, err)
	}
	return image, os.WriteFile(stamp, []byte(want), 0o644)
}

func (c *Config) complete() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dir == "" {
		c.Dir = filepath.Join("build", "golden")
	}
	if c.Cache == "" {
		dir, err := CacheDir()
		if err != nil {
			return err
		}
		c.Cache = dir
	}
	return nil
}

//go:embed *.go files
var sources embed.FS

// recipe returns the SHA-256 over some of this package's sources: another recipe makes another image.
func recipe(paths ...string) string {
	sum := sha256.New()
	for _, path := range paths {
		err := fs.WalkDir(sources, path, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := sources.ReadFile(path)
			fmt.Fprintf(sum, "%s %d\n", path, len(b))
			sum.Write(b)
			return err
		})
		if err != nil {
			panic(err) // the sources are in the program
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// tools are the programs that the recipe runs, with the Debian package of each.
var tools = map[string]string{
	"mmdebstrap": "mmdebstrap", "tar": "tar", "dpkg": "dpkg", "zstd": "zstd", "sgdisk": "gdisk", "mkfs.ext4": "e2fsprogs",
	"mkfs.vfat": "dosfstools", "mkswap": "util-linux", "mkntfs": "ntfs-3g", "ntfscp": "ntfs-3g", "mcopy": "mtools", "mmd": "mtools",
	"grub-mkimage": "grub-common", "apt-get": "apt",
}

func checkTools() error {
	missing := map[string]bool{}
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing[pkg] = true
		}
	}
	if _, err := os.Stat(bootSector); err != nil {
		missing["grub-pc-bin"] = true
	}
	if len(missing) == 0 {
		return nil
	}
	var list []string
	for pkg := range missing {
		list = append(list, pkg)
	}
	return fmt.Errorf("golden image: programs are missing; run: apt-get install %s", strings.Join(list, " "))
}

// run runs a program and returns its output; a failure carries what it printed.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLines(out, 12))
	}
	return out, nil
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

package golden

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

const (
	sector = 512     // bytes, logical
	mib    = 1 << 20 // bytes
	// DiskLength is the length of both images in bytes.
	DiskLength = 448 * mib
	// junkLength is how much of the root partition's end holds what deleted files left, in bytes: free space that
	// nobody may send.
	junkLength = 16 * mib
	// bootSector is GRUB's first stage for BIOS.
	bootSector = "/usr/lib/grub/i386-pc/boot.img"
)

// Identities of the golden disk; the configuration of GRUB and /etc/fstab name the same.
const (
	diskGUID = "5EEDBED0-0000-4000-8000-000000000000"
	espID    = "5EEDBED2"
	rootUUID = "5eedbed0-0000-4000-8000-000000000003"
	swapUUID = "5eedbed0-0000-4000-8000-000000000004"
)

// partition is one entry of the golden table, in bytes.
type partition struct {
	number         int
	offset, length int64
	code, label    string // sgdisk's type code
}

// partitions are the table of both images.
var partitions = []partition{
	{1, 1 * mib, 1 * mib, "ef02", "bios"},
	{2, 2 * mib, 40 * mib, "ef00", "esp"}, // FAT32 needs 65,525 clusters: 33 MB and more
	{3, 42 * mib, 320 * mib, "8300", "root"},
	{4, 362 * mib, 16 * mib, "8200", "swap"},
	{5, 378 * mib, 64 * mib, "0700", "data"},
}

// assemble makes the image as one sparse file; the image appears under its name when it is whole.
func assemble(ctx context.Context, kind Kind, r root, image string) error {
	work, err := os.MkdirTemp(filepath.Dir(image), ".golden-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := extractRoot(ctx, kind, r, filepath.Join(work, "root")); err != nil {
		return err
	}
	fill := []func(context.Context, root, string, string) error{fillBIOS, fillESP, fillRoot, fillSwap, fillData}
	disk := filepath.Join(work, "disk")
	if err := truncate(disk, DiskLength); err != nil {
		return err
	}
	args := []string{"--clear", "-U", diskGUID, "-a", "2048"}
	for _, p := range partitions {
		n := strconv.Itoa(p.number)
		args = append(args, "-n", fmt.Sprintf("%s:%d:%d", n, p.offset/sector, (p.offset+p.length)/sector-1),
			"-t", n+":"+p.code, "-c", n+":"+p.label, "-u", n+":"+diskGUID[:35]+n)
	}
	if _, err := run(ctx, "sgdisk", append(args, disk)...); err != nil {
		return err
	}
	for i, p := range partitions {
		part := filepath.Join(work, "p"+strconv.Itoa(p.number))
		if err := truncate(part, p.length); err != nil {
			return err
		}
		if err := fill[i](ctx, r, work, part); err != nil {
			return fmt.Errorf("partition %d (%s): %w", p.number, p.label, err)
		}
		if err := copySparse(disk, p.offset, part); err != nil {
			return err
		}
	}
	if err := installBootSector(disk); err != nil {
		return err
	}
	return os.Rename(disk, image)
}

func truncate(path string, length int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(length)
}

// copySparse writes src into dst at offset, leaving out runs of zeros.
func copySparse(dst string, offset int64, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	b, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(in, b)
		if n > 0 && !bytes.Equal(b[:n], zero[:n]) {
			if _, err := out.WriteAt(b[:n], offset); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		offset += int64(n)
	}
}

// fillBIOS makes GRUB's core for BIOS, which begins with the list of the sectors that follow its first.
func fillBIOS(ctx context.Context, _ root, work, part string) error {
	config := filepath.Join(work, "bios.cfg")
	text := "search --no-floppy --fs-uuid --set=root " + rootUUID + "\nset prefix=($root)/boot/grub\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	core := filepath.Join(work, "core.img")
	if _, err := run(ctx, "grub-mkimage", "-O", "i386-pc", "-c", config, "-p", "/boot/grub", "-o", core, "biosdisk", "part_gpt",
		"ext2", "normal", "linux", "configfile", "echo", "search", "search_fs_uuid", "test", "boot", "minicmd"); err != nil {
		return err
	}
	b, err := os.ReadFile(core)
	if err != nil {
		return err
	}
	b = append(b, make([]byte, -len(b)&(sector-1))...)
	if int64(len(b)) > partitions[0].length {
		return fmt.Errorf("GRUB's core of %d bytes does not fit", len(b))
	}
	// GRUB's first block list entry, at the end of the core's first sector: LBA and count of what follows that sector.
	binary.LittleEndian.PutUint64(b[0x1f4:], uint64(partitions[0].offset/sector)+1)
	binary.LittleEndian.PutUint16(b[0x1fc:], uint16(len(b)/sector-1))
	return writeAt(part, 0, b)
}

// installBootSector puts GRUB's first stage into the first 440 bytes of the disk and tells it where its core begins.
func installBootSector(disk string) error {
	b, err := os.ReadFile(bootSector)
	if err != nil {
		return fmt.Errorf("%w (Debian package grub-pc-bin)", err)
	}
	binary.LittleEndian.PutUint64(b[0x5c:], uint64(partitions[0].offset/sector))
	b[0x66], b[0x67] = 0x90, 0x90 // do not look at the drive's number for a floppy
	return writeAt(disk, 0, b[:440])
}

func writeAt(path string, offset int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, offset); err != nil {
		return err
	}
	return f.Close()
}

// fillESP puts the signed shim and GRUB where firmware looks on a disk without boot entries.
func fillESP(ctx context.Context, r root, work, part string) error {
	config := filepath.Join(work, "esp.cfg")
	text := "search --no-floppy --fs-uuid --set=root " + rootUUID + "\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	steps := [][]string{
		{"mkfs.vfat", "-F", "32", "-i", espID, "-n", "ESP", part},
		{"mmd", "-i", part, "::EFI", "::EFI/BOOT", "::EFI/debian"},
		{"mcopy", "-i", part, r.shim(), "::EFI/BOOT/BOOTX64.EFI"},
		{"mcopy", "-i", part, r.grub(), "::EFI/BOOT/grubx64.efi"},
		{"mcopy", "-i", part, r.shim(), "::EFI/debian/shimx64.efi"},
		{"mcopy", "-i", part, r.grub(), "::EFI/debian/grubx64.efi"},
		{"mcopy", "-i", part, config, "::EFI/debian/grub.cfg"},
	}
	for _, s := range steps {
		if _, err := run(ctx, s[0], s[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// fillRoot makes the ext4 file system. The end of the partition holds junk first, as a disk that was used does.
func fillRoot(ctx context.Context, _ root, work, part string) error {
	junk := randomBytes(3, junkLength)
	if err := writeAt(part, partitions[2].length-junkLength, junk); err != nil {
		return err
	}
	_, err := run(ctx, "mkfs.ext4", "-q", "-F", "-L", "root", "-U", rootUUID, "-m", "0", "-b", "4096", "-E", "nodiscard,hash_seed="+rootUUID,
		"-d", filepath.Join(work, "root"), part)
	return err
}

func fillSwap(ctx context.Context, _ root, _, part string) error {
	_, err := run(ctx, "mkswap", "-L", "swap", "-U", swapUUID, part)
	return err
}

// fillData makes the NTFS partition with a few files; the map of an image keeps it in full.
func fillData(ctx context.Context, _ root, work, part string) error {
	if _, err := run(ctx, "mkntfs", "-q", "-F", "-Q", "-L", "DATA", "-s", "512", "-p", strconv.FormatInt(partitions[4].offset/sector, 10),
		"-H", "255", "-S", "63", part); err != nil {
		return err
	}
	var text bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintf(&text, "%d,machine-%d,%d\r\n", i, i%30, i*i)
	}
	for name, b := range map[string][]byte{"readme.txt": []byte("Data partition of the golden image.\r\n"),
		"table.csv": text.Bytes(), "random.bin": randomBytes(5, 4*mib)} {
		file := filepath.Join(work, name)
		if err := os.WriteFile(file, b, 0o644); err != nil {
			return err
		}
		if _, err := run(ctx, "ntfscp", "-q", "-f", part, file, name); err != nil {
			return err
		}
	}
	return nil
}

// randomBytes returns n bytes that do not compress, the same for the same seed.
func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

package capture

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images/fsmap"
)

func TestDynamicDiskIsCopiedInFull(t *testing.T) {
	for kind, args := range map[string][]string{
		"GPT": {"-o", "-a", "1", "-n", "1:2048:+24M", "-t", "1:AF9B60A0-1431-4F62-BC68-3311714A69AD"},
		"MBR": {"-o", "-a", "1", "-n", "1:2048:+24M", "-t", "1:4200", "-m", "1"},
	} {
		t.Run(kind, func(t *testing.T) {
			folder := t.TempDir()
			disk, content := filepath.Join(folder, "disk"), filepath.Join(folder, "content")
			create(t, disk, 32*mib)
			create(t, content, 24*mib)
			tool(t, "ntfs-3g", "mkntfs", "-q", "-F", "-f", content)
			tool(t, "gdisk", "sgdisk", append(args, disk)...)
			place(t, disk, content, mib)
			r := openRepository(t)
			result, err := captureDisk(t.Context(), open(t, disk), 32*mib, 512, r, options("dynamic"))
			if err != nil {
				t.Fatal(err)
			}
			p := result.Image.Manifest.Partitions[0]
			if p.MapKind != fsmap.KindFull || p.UsedLength != 24*mib || !strings.Contains(strings.Join(result.Warnings, " "), "dynamic disk") {
				t.Errorf("%+v, warnings %q", p, result.Warnings)
			}
			o := options("dynamic")
			o.RefuseOpaque = true
			if _, err := captureDisk(t.Context(), open(t, disk), 32*mib, 512, r, o); !errors.Is(err, fsmap.ErrOpaque) {
				t.Errorf("error %v, want ErrOpaque", err)
			}
		})
	}
}

func TestPartitionsWithoutAFileSystemByDesignGiveNoWarning(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	create(t, disk, 96*mib)
	tool(t, "gdisk", "sgdisk", "-o", "-a", "1", "-n", "1:2048:+64M", "-t", "1:0C01", disk) // Microsoft reserved
	o := options("reserved")
	o.RefuseOpaque = true
	result, err := captureDisk(t.Context(), open(t, disk), 96*mib, 512, openRepository(t), o)
	if err != nil || len(result.Warnings) > 0 || result.Image.Manifest.Partitions[0].MapKind != fsmap.KindFull {
		t.Errorf("%+v, %v", result, err)
	}
}

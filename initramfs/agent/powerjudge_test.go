package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
	"seedbed/images/parttable"
)

// table says what a firmware or a kernel could take for a table or, on a disk without one, for a file system; "" for nothing.
func (p *proof) table(state []byte) string {
	last := len(state) - 512
	table, err := parttable.Read(bytes.NewReader(state), int64(len(state)), 512)
	switch {
	case err == nil && table.Kind != parttable.None:
		return "a table (" + table.Kind + ")"
	case state[510] == 0x55 && state[511] == 0xAA:
		return "a boot sector"
	case bytes.Equal(state[512:520], []byte("EFI PART")) || bytes.Equal(state[last:last+8], []byte("EFI PART")):
		return "a GPT header"
	case p.img.Manifest.Frame.Table == parttable.None && state[1080] == 0x53 && state[1081] == 0xEF:
		return "a superblock"
	}
	return ""
}

// wrong says where a disk has other bytes than the image; "" for nowhere. The image's own bytes are proven against the
// roots of the manifest by right.
func (p *proof) wrong(state []byte) string {
	for i, list := range p.used {
		for _, e := range list {
			if !bytes.Equal(state[e.Offset:e.End()], p.img.Disk[e.Offset:e.End()]) {
				return fmt.Sprintf("partition %d has other bytes in %v of the disk", p.img.Manifest.Partitions[i].Number, e)
			}
		}
	}
	return ""
}

// right says how the roots over a disk through the mask differ from the manifest's; "" for not at all.
func (p *proof) right(state []byte) string {
	for i, part := range p.img.Manifest.Partitions {
		first, end := p.img.Layout.Pieces(i)
		var pieces []images.Digest
		for piece := first; piece < end; piece++ {
			var tiles []images.Digest
			for n := range p.img.Layout.Tiles(piece) {
				e := p.img.Layout.TileExtent(piece, n, 1)
				raw := bytes.Clone(state[part.Offset+e.Offset : part.Offset+e.End()])
				p.img.Layout.Mask(i, raw, e.Offset)
				tiles = append(tiles, images.TileHash(raw))
			}
			pieces = append(pieces, images.PieceHash(tiles, p.img.Layout.Span(piece).Length, p.img.Manifest.PieceLength, part.Length))
		}
		if images.PartitionRoot(pieces, p.img.Manifest.PieceLength) != part.Root {
			return fmt.Sprintf("the root of partition %d is not the manifest's", part.Number)
		}
	}
	return ""
}

// lacks returns the bytes of data tiles that a disk does not hold.
func (p *proof) lacks(state []byte) (n int64) {
	l := p.img.Layout
	for piece := range l.Count() {
		base := l.DiskOffset(l.Span(piece).Partition)
		for t := range l.Data(piece).All() {
			e := l.TileExtent(piece, t, 1)
			raw := bytes.Clone(state[base+e.Offset : base+e.End()])
			if l.Mask(l.Span(piece).Partition, raw, e.Offset); !bytes.Equal(raw, p.img.Tile(piece, t)) {
				n += int64(len(raw))
			}
		}
	}
	return n
}

// wiped is the moment at which the old table is gone for good, and where the image has none, the superblock too.
func (p *proof) wiped(record *tape) int {
	n := 0
	if p.img.Manifest.Frame.Table == parttable.None {
		n = 1
	}
	if len(record.flushes) <= n {
		return never
	}
	return record.flushes[n].end
}

// check looks at the disk after a power cut at a moment of a record.
func (p *proof) check(record *tape, moment int, state []byte) string {
	shows := p.table(state)
	switch {
	case shows == "":
		return ""
	case moment <= p.wiped(record): // the old table goes, and nothing but it was touched
		return ""
	}
	if wrong := p.wrong(state); wrong != "" {
		return "the disk shows " + shows + ", and " + wrong
	}
	return ""
}

// inMemory makes a folder for files that need not outlive the test.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "seedbed-power-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ask has the tools look for a table, or a file system on the whole disk.
func (p *proof) ask(t *testing.T, state []byte) string {
	t.Helper()
	dir := inMemory(t)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "state")
	if err := os.WriteFile(file, state, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.img.Manifest.Frame.Table == parttable.None {
		out, err := exec.Command("/usr/sbin/blkid", "-p", file).Output()
		if e := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &e) || e.ExitCode() != 2) {
			t.Fatalf("blkid: %v (Debian: apt-get install util-linux)", err)
		}
		return string(out)
	}
	out, err := exec.Command("/usr/sbin/sfdisk", "-d", file).CombinedOutput()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatalf("sfdisk: %v (Debian: apt-get install fdisk)", err)
	} else if err == nil {
		return string(out)
	}
	path, err := exec.LookPath("sgdisk")
	if err != nil {
		t.Fatal("sgdisk is missing (Debian: apt-get install gdisk)")
	}
	if out, err := exec.Command(path, "-p", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "GPT: not present") && !strings.Contains(string(out), "Creating new GPT") {
		return string(out)
	}
	return ""
}

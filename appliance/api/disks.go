package api

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/restore"
)

// DiskOrder asks to hold a disk against an image.
type DiskOrder struct {
	Path   string `json:"path"` // absolute: of a disk, or a file that holds one
	Repair bool   `json:"repair,omitempty"`
	// HealFrom is the absolute path of another disk, or of a file with one, that holds the image: a repair takes from it what
	// is damaged in the repository.
	HealFrom string `json:"heal_from,omitempty"`
}

// DiskReport says what is wrong with a disk.
type DiskReport struct {
	Image      string        `json:"image"` // "debian:1"
	Digest     images.Digest `json:"digest"`
	Path       string        `json:"path"`
	DiskLength int64         `json:"disk_length"` // bytes
	// Compared are the bytes of tiles in use.
	Compared    int64 `json:"compared"`
	WrongTiles  int64 `json:"wrong_tiles"`
	WrongLength int64 `json:"wrong_length"` // bytes of these tiles
	WrongFrame  int64 `json:"wrong_frame"`  // bytes outside the partitions
	// Ranges are what is wrong, at most MaxRanges; More are not listed.
	Ranges []restore.Range `json:"ranges"`
	More   int             `json:"more,omitempty"`
	// Repair is what was done about it, if that was asked for and something was wrong.
	Repair *DiskRepair `json:"repair,omitempty"`
}

// MaxRanges bounds the ranges of a DiskReport.
const MaxRanges = 10_000

// IsRight reports whether the disk holds the image now.
func (r *DiskReport) IsRight() bool {
	return r.WrongTiles == 0 && r.WrongFrame == 0 || r.Repair != nil && len(r.Repair.Left) == 0
}

// DiskRepair says what a repair wrote.
type DiskRepair struct {
	Tiles  int64 `json:"tiles"`
	Length int64 `json:"length"` // bytes written
	// FromDisk says that what was written was read back from the disk itself, past the memory of this machine.
	FromDisk bool `json:"from_disk"`
	// Elsewhere counts the tiles of Tiles that are damaged in the repository and came from machines or another disk. The
	// repository has them now too, or NotHealed is a sentence that says why not.
	Elsewhere int    `json:"elsewhere,omitempty"`
	NotHealed string `json:"not_healed,omitempty"`
	// Left are sentences about tiles that the image itself has no right copy of.
	Left []string `json:"left,omitempty"`
}

// DiskOutput takes a disk as a stream. Owned by one goroutine.
type DiskOutput interface {
	// Begin is called once and first: the length of the disk, and the bytes of data that are to come, more or less.
	Begin(length, data int64) error
	// Write takes bytes in ascending order; what is not given is zero. b is not kept.
	Write(offset int64, b []byte) error
}

// Disks are the operations between images and disks. Safe for concurrent use; progress may be nil, is called often, one
// call at a time.
type Disks interface {
	// CheckDisk compares a disk with an image, and repairs it if that is asked for.
	CheckDisk(ctx context.Context, ref string, o DiskOrder, progress func(Progress)) (*DiskReport, error)
	// Export gives out a disk of length bytes (0: as captured) with the image.
	Export(ctx context.Context, ref string, length int64, out DiskOutput) error
}

// A disk on its way: "SBDISK1\n", length of the disk (8 bytes, big-endian as all numbers), bytes of data to come (8); then
// records: offset (8), length (4), bytes. The last has the offset diskEnd and carries a problem in JSON, or nothing.
const (
	diskKind       = "application/x-seedbed-disk"
	diskMagic      = "SBDISK1\n"
	diskEnd        = 1<<64 - 1
	maxDiskRecord  = 64 << 20 // a region of a frame
	diskHeadLength = len(diskMagic) + 16
)

// diskSender implements DiskOutput over HTTP.
type diskSender struct {
	w        http.ResponseWriter
	buffered *bufio.Writer
	begun    bool
}

func (s *diskSender) Begin(length, data int64) error {
	s.begun = true
	s.w.Header().Set("Content-Type", diskKind)
	b := binary.BigEndian.AppendUint64([]byte(diskMagic), uint64(length))
	_, err := s.buffered.Write(binary.BigEndian.AppendUint64(b, uint64(data)))
	return err
}

func (s *diskSender) Write(offset int64, b []byte) error { return s.record(uint64(offset), b) }

func (s *diskSender) record(offset uint64, b []byte) error {
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, offset), uint32(len(b)))
	if _, err := s.buffered.Write(head); err != nil {
		return err
	}
	_, err := s.buffered.Write(b)
	return err
}

// end sends the last record; a caller that is gone needs none.
func (s *diskSender) end(err error) {
	var b []byte
	if err != nil {
		p := problemOf(err)
		b, _ = json.Marshal(p) // strings and numbers
	}
	if s.record(diskEnd, b) == nil {
		s.buffered.Flush()
	}
}

// ReceiveDisk hands a disk that comes as an answer to out.
func ReceiveDisk(r io.Reader, out DiskOutput) error {
	in := bufio.NewReaderSize(r, 1<<20)
	cut := func(err error) error {
		return fmt.Errorf("the appliance stopped in the middle of the disk: %w", err)
	}
	var head [diskHeadLength]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return cut(err)
	}
	if string(head[:len(diskMagic)]) != diskMagic {
		return errors.New("the appliance's answer is no disk; is it another version than this program?")
	}
	length := int64(binary.BigEndian.Uint64(head[len(diskMagic):]))
	if length <= 0 || length > 1<<56 {
		return fmt.Errorf("the appliance sent a disk of %d bytes", length)
	}
	if err := out.Begin(length, int64(binary.BigEndian.Uint64(head[len(diskMagic)+8:]))); err != nil {
		return err
	}
	emit := restore.CheckOrder(length, out.Write)
	var buf []byte
	for {
		var record [12]byte
		if _, err := io.ReadFull(in, record[:]); err != nil {
			return cut(err)
		}
		offset, n := binary.BigEndian.Uint64(record[:]), binary.BigEndian.Uint32(record[8:])
		if n > maxDiskRecord {
			return fmt.Errorf("the appliance sent a record of %d bytes", n)
		}
		if int(n) > cap(buf) {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return cut(err)
		}
		if offset != diskEnd {
			if err := emit(int64(offset), buf[:n]); err != nil {
				return err
			}
			continue
		}
		if n == 0 {
			return nil
		}
		var p job.Problem
		if err := json.Unmarshal(buf[:n], &p); err != nil {
			return cut(err)
		}
		return &fleet.Refusal{Code: p.Code, Detail: p.Detail}
	}
}

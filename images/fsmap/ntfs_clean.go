package fsmap

import (
	"fmt"
	"strings"
)

// Flags of $VOLUME_INFORMATION that say that Windows has work to do before the volume is what it should be.
// Not among them: mounted by NT 4 (0x8), a change journal being deleted (0x10), object IDs to repair (0x20), 0x80 that
// Windows 8 and later set, modified by chkdsk (0x8000), which stays until the next mount.
var ntfsUnclean = []struct {
	flag uint16
	what string
}{
	{0x1, "it is marked dirty"},
	{0x2, "its log is to be resized"},
	{0x4, "it is to be upgraded at its next mount"},
	{0x4000, "chkdsk is at work on it"},
}

const (
	ntfsRemedyCheck = "start Windows, run chkdsk /f on it, shut down with shutdown /s /f /t 0, and capture again"
	ntfsRemedyFast  = "start Windows, turn fast start-up off with powercfg /h off, shut down with shutdown /s /f /t 0, and capture again"
)

// checkClean refuses a volume whose records may be behind what Windows knows.
func (n *ntfs) checkClean() error {
	s, err := n.open(ntfsVolume, ntfsVolumeInfo, "")
	if err != nil {
		return err
	}
	if len(s.resident) < 12 {
		return unmapped("its volume information has %d bytes", s.size)
	}
	if major, minor := s.resident[8], s.resident[9]; major != 3 || minor > 1 {
		return fmt.Errorf("%w: version %d.%d; capture it in full, or with a newer release", ErrUnknownFeature, major, minor)
	}
	flags := le.Uint16(s.resident[10:])
	for _, f := range ntfsUnclean {
		if flags&f.flag != 0 {
			return fmt.Errorf("%w: %s; %s", ErrDirty, f.what, ntfsRemedyCheck)
		}
	}
	return n.checkLog()
}

// checkLog looks at the restart pages of $LogFile. A log that is filled with 0xFF was emptied by mkntfs, ntfs-3g or
// ntfsfix, which do so only when nothing is left to replay.
func (n *ntfs) checkLog() error {
	s, err := n.open(ntfsLogFile, ntfsData, "")
	if err != nil {
		return err
	}
	var newest []byte
	newestLSN, empty := int64(0), true
	// One restart page is at the start, the other behind it; the length of a page stands in the pages only.
	for at, next := int64(0), int64(0); at+512 <= s.size; at = next {
		next = max(512, 2*at)
		b, err := s.read(at, 512)
		if err != nil {
			return err
		}
		sign := string(b[:4])
		if sign != "\xff\xff\xff\xff" {
			empty = false
		} else if !empty {
			break
		}
		if sign == "RCRD" { // the records follow the restart pages
			break
		}
		if sign != "RSTR" && sign != "CHKD" {
			continue
		}
		page := n.restartPage(s, at, int64(le.Uint32(b[0x10:])))
		if page == nil {
			return fmt.Errorf("%w: a restart page of its log was not written whole; %s", ErrDirty, ntfsRemedyCheck)
		}
		next = max(next, int64(len(page)))
		if lsn := int64(le.Uint64(page[le.Uint16(page[0x18:]):])); newest == nil || lsn > newestLSN {
			newest, newestLSN = page, lsn
		}
	}
	switch {
	case empty:
		return nil
	case newest == nil:
		return fmt.Errorf("%w: its log has no restart page; %s", ErrDirty, ntfsRemedyCheck)
	case le.Uint16(newest[0x1c:]) == 2:
		// Windows 8 and later write version 2.0 while the volume is mounted or in a fast start-up's image, and 1.1 when they
		// let go of it.
		return fmt.Errorf("%w: Windows keeps its records in a hibernated session, or was cut off; %s", ErrDirty, ntfsRemedyFast)
	}
	area := newest[le.Uint16(newest[0x18:]):]
	if clients, flags := le.Uint16(area[12:]), le.Uint16(area[14:]); clients != 0xFFFF && flags&2 == 0 {
		return fmt.Errorf("%w: it was not unmounted, its log has to be replayed; %s", ErrDirty, ntfsRemedyCheck)
	}
	return nil
}

// restartPage reads a restart page of length bytes, or returns nil if it was not written whole.
func (n *ntfs) restartPage(s *ntfsStream, at, length int64) []byte {
	if !isLength(length, 512, 64<<10) || at > s.size-length {
		return nil
	}
	page, err := s.read(at, length)
	if err != nil || !fixUp(page) {
		return nil
	}
	if area := int64(le.Uint16(page[0x18:])); area < 0x1e || area > length-48 {
		return nil
	}
	return page
}

// hibernationHeader is what has to be there of a hibernation file, in bytes.
const hibernationHeader = 4096

// checkHibernated looks into hibernation files as ntfs-3g does (ntfs_volume_check_hiberfile).
func (n *ntfs) checkHibernated(files []ntfsFile) error {
	for _, f := range files {
		if f.name != "hiberfil.sys" {
			continue
		}
		s := &ntfsStream{n: n}
		if err := s.load(f.record, ntfsData, ""); err != nil {
			return err
		}
		switch {
		case s.found && s.flags&(ntfsCompressed|ntfsEncrypted) != 0:
			return unmapped("its hibernation file is compressed or encrypted")
		case s.size < hibernationHeader:
			return fmt.Errorf("%w: Windows is hibernated with this volume in use; %s", ErrDirty, ntfsRemedyFast)
		}
		b, err := s.read(0, hibernationHeader)
		if err != nil {
			return err
		}
		// "rstr": a session that is being resumed; "wake" and zeros: one that was.
		if sign := strings.ToLower(string(b[:4])); sign == "hibr" || sign == "rstr" {
			return fmt.Errorf("%w: Windows is hibernated, or shut down with fast start-up; %s", ErrDirty, ntfsRemedyFast)
		}
	}
	return nil
}

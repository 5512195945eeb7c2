package fsmap

import "fmt"

// The log of XFS (Linux, fs/xfs/libxfs/xfs_log_format.h). It is a ring of basic blocks of 512 bytes. The first word of each
// is the number of the cycle in which it was written, but the first of a record's header, whose second word is it.
const (
	xfsBasic        = 512
	xfsLogMagic     = 0xfeedbabe
	xfsLogHeaderPer = 32 << 10 // bytes of a record for each basic block of header (XLOG_HEADER_CYCLE_SIZE)
	xfsUnmount      = 0x20     // oh_flags: the operation says that the file system was unmounted (XLOG_UNMOUNT_TRANS)
	// xfsInFlight is how many basic blocks the kernel writes at a time, in any order: 8 records of 256 KiB.
	xfsInFlight = 8 * 256 << 10 / xfsBasic
	// xfsRecord bounds one record in basic blocks: its header and 256 KiB.
	xfsRecord = 8 + 256<<10/xfsBasic
)

// xfsLog is an internal log. Positions are in basic blocks from its start.
type xfsLog struct {
	v      *volume
	start  int64 // bytes
	length int64
	v2     bool
	first  uint32 // cycle of block 0, and of all before the head
	last   uint32 // cycle of the last block, and of all from the head on
	head   int64  // where the next record would be written; length if that is at the start again
}

// checkLog refuses a file system whose log has to be replayed: whose last record does not say that it was unmounted.
// There is no other mark. What is not certain counts as not clean.
func (x *xfs) checkLog() error {
	sb := x.sb
	number, blocks := be.Uint64(sb[48:]), int64(be.Uint32(sb[96:]))
	group, at := int64(number>>(sb[124]&63)), int64(number&(1<<(sb[124]&63)-1))
	if group >= x.groups || at >= x.perGroup || blocks < 1 || blocks > x.perGroup-at || group*x.perGroup+at+blocks > x.blocks {
		return unmapped("its log of %d blocks is at %#x", blocks, number)
	}
	l := &xfsLog{v: x.v, start: (group*x.perGroup + at) * x.blockLength, length: blocks * x.blockLength / xfsBasic}
	l.v2 = x.v5 || be.Uint16(sb[100:])&xfsLogV2 != 0
	clean, err := l.clean()
	if err != nil || clean {
		return err
	}
	return fmt.Errorf("%w: its log has to be replayed; mount and unmount it, or shut the system down cleanly, then capture again"+
		" (xfs_repair -L, which loses the last changes, is the last resort)", ErrDirty)
}

// block returns one basic block, counted around the ring.
func (l *xfsLog) block(i int64) ([]byte, error) {
	return l.v.read(l.start+(i+l.length)%l.length*xfsBasic, xfsBasic)
}

func xfsCycle(b []byte) uint32 {
	if be.Uint32(b) == xfsLogMagic {
		return be.Uint32(b[4:])
	}
	return be.Uint32(b)
}

func (l *xfsLog) clean() (bool, error) {
	if ok, err := l.findHead(); err != nil || !ok {
		return false, err
	}
	// A record that was written while one before it was not leaves a hole.
	if ok, err := l.sameCycle(max(0, l.head-xfsInFlight), l.head, l.first); err != nil || !ok {
		return false, err
	}
	if ok, err := l.sameCycle(l.head, min(l.length, l.head+xfsInFlight), l.last); err != nil || !ok {
		return false, err
	}
	for i := l.head - 1; i >= l.head-min(xfsRecord, l.length); i-- {
		b, err := l.block(i)
		if err != nil {
			return false, err
		}
		if be.Uint32(b) == xfsLogMagic {
			return l.unmounted(b, i)
		}
	}
	return false, nil
}

// findHead looks for where the cycle changes. It reports false where the cycles make no sense.
func (l *xfsLog) findHead() (bool, error) {
	cycle := func(i int64) (uint32, error) {
		b, err := l.block(i)
		if err != nil {
			return 0, err
		}
		return xfsCycle(b), nil
	}
	var err error
	if l.first, err = cycle(0); err != nil {
		return false, err
	}
	if l.last, err = cycle(l.length - 1); err != nil {
		return false, err
	}
	l.head = l.length
	if l.first == l.last {
		return l.first != 0, nil
	}
	if l.last != 0 && l.last+1 != l.first {
		return false, nil
	}
	low := int64(0) // of cycle first; head is of another
	for l.head--; l.head-low > 1; {
		middle := (low + l.head) / 2
		c, err := cycle(middle)
		if err != nil {
			return false, err
		}
		if c == l.first {
			low = middle
		} else {
			l.head = middle
		}
	}
	return true, nil
}

// sameCycle reports whether all basic blocks [from, to) are of one cycle.
func (l *xfsLog) sameCycle(from, to int64, cycle uint32) (bool, error) {
	b, err := l.v.read(l.start+from*xfsBasic, (to-from)*xfsBasic)
	if err != nil {
		return false, err
	}
	for ; len(b) > 0; b = b[xfsBasic:] {
		if xfsCycle(b) != cycle {
			return false, nil
		}
	}
	return true, nil
}

// unmounted reports whether the record with header h at block i ends at the head and says that the file system was
// unmounted.
func (l *xfsLog) unmounted(h []byte, i int64) (bool, error) {
	headers := int64(1)
	if size := int64(be.Uint32(h[320:])); l.v2 && be.Uint32(h[8:])&2 != 0 && size > xfsLogHeaderPer {
		headers = (size + xfsLogHeaderPer - 1) / xfsLogHeaderPer
	}
	length := (int64(be.Uint32(h[12:])) + xfsBasic - 1) / xfsBasic
	if operations := be.Uint32(h[40:]); operations != 1 || length < 1 || i+headers+length != l.head {
		return false, nil
	}
	b, err := l.block(i + headers)
	if err != nil {
		return false, err
	}
	return b[9]&xfsUnmount != 0, nil // the cycle takes the place of the first word alone
}

package capture

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/images/fsmap"
)

// empty is a disk of zeros that cancels when it was read for a while.
type empty struct {
	reads  *atomic.Int64
	cancel func()
}

func (e empty) ReadAt(b []byte, _ int64) (int, error) {
	if e.reads.Add(1) == 100 {
		e.cancel()
	}
	clear(b)
	b[0] = 1 // nothing is recognised
	return len(b), nil
}

func TestADiskThatNoImageHoldsIsRefusedBeforeItIsRead(t *testing.T) {
	for length, want := range map[int64]string{1 << 52: "bytes of partitions", 1 << 45: "bytes of partitions", 1 << 44: "canceled"} {
		ctx, cancel := context.WithCancel(t.Context())
		o := options("huge")
		o.Full = true
		_, err := Disk(ctx, empty{new(atomic.Int64), cancel}, length, 512, discard{}, o.Options)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}

func TestACancelledCaptureEndsThoughFileSystemsAreBeingMapped(t *testing.T) {
	disk, length := newDisk(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	_, err := Disk(ctx, open(t, disk), length, 512, discard{}, options("golden").Options)
	if !errors.Is(err, context.Canceled) || fsmap.Refused(err) || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

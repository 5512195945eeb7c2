package fsmap

import (
	"fmt"
	"slices"
	"strings"

	"seedbed/images"
)

// The signature of Linux swap fills the last 10 bytes of the first page, whose length is the machine's.
var (
	swapPages     = []int{4096, 8192, 16 << 10, 64 << 10}
	swapSleepings = []string{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"}
)

// swapPage returns the length of the first page and its signature, or 0.
func swapPage(v *volume) (int, string) {
	for _, n := range swapPages {
		s := strings.TrimRight(string(v.head[n-10:n]), "\x00")
		if s == "SWAPSPACE2" || slices.Contains(swapSleepings, s) {
			return n, s
		}
	}
	return 0, ""
}

func probeSwap(v *volume) *Info {
	n, _ := swapPage(v)
	if n == 0 {
		return nil
	}
	return &Info{FS: "swap", UUID: formatUUID(v.head[1024+12:]), Label: text(v.head[1024+28 : 1024+44])}
}

// scanSwap takes the first page: it describes the swap space, whose content is of no use to another machine.
func scanSwap(v *volume) ([]images.Extent, error) {
	n, signature := swapPage(v)
	if signature != "SWAPSPACE2" {
		return nil, fmt.Errorf("%w: a hibernated system lies in it; start that system, shut it down and capture again", ErrDirty)
	}
	if version := le.Uint32(v.head[1024:]); version != 1 {
		return nil, unmapped("swap header version %d", version)
	}
	if v.keep {
		return []images.Extent{{Offset: 0, Length: v.length}}, nil
	}
	if rest := v.length - int64(n); rest > 0 {
		v.dropped = append(v.dropped, Dropped{Name: "swap space", Length: rest})
	}
	return []images.Extent{{Offset: 0, Length: int64(n)}}, nil
}

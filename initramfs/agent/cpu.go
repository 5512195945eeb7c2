package agent

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"
)

// processors tells how busy the machine's processors are. The zero value is ready. Safe for concurrent use.
type processors struct {
	mu          sync.Mutex // guards what follows
	at          time.Time
	busyTicks   int64
	allTicks    int64
	share       float64
	unavailable bool
}

// shortest is over how long the processors are looked at, at least: the kernel counts in hundredths of a second.
const shortest = time.Second

// busy returns the busy share of all processors since it was asked last, or over the second before that; 0 is not known.
func (p *processors) busy() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unavailable || time.Since(p.at) < shortest {
		return p.share
	}
	stat, err := os.ReadFile("/proc/stat")
	busy, all, ok := parseStat(stat)
	if p.unavailable = err != nil || !ok; p.unavailable {
		return 0
	}
	if !p.at.IsZero() && all > p.allTicks {
		p.share = min(1, max(0, float64(busy-p.busyTicks)/float64(all-p.allTicks)))
	}
	p.at, p.busyTicks, p.allTicks = time.Now(), busy, all
	return p.share
}

// parseStat returns the ticks that all processors spent at work, and all their ticks, from /proc/stat (proc_stat(5)): the first line
// has user, nice, system, idle, iowait, irq, softirq, steal, and the guests' time, which user and nice count already. Who waits for
// a disk is idle.
func parseStat(stat []byte) (busy, all int64, ok bool) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 6 || string(fields[0]) != "cpu" {
		return 0, 0, false
	}
	for i, f := range fields[1:min(len(fields), 9)] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, 0, false
		}
		all += n
		if i != 3 && i != 4 {
			busy += n
		}
	}
	return busy, all, true
}

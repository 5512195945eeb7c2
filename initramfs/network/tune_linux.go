package network

import "os"

// settings of the kernel, below /proc/sys/net/ipv4.
var settings = map[string]string{
	// Two network cards in one subnet: each answers for its own address alone, and asks with it.
	"conf/all/arp_ignore":   "1",
	"conf/all/arp_announce": "2",
	// Timestamps (RFC 7323 §3) take 12 of each 1,460 bytes, which the last machine waits for; it is enough that one end does
	// without. What they are for is not here: round trips so long, or segments so old, that sequence numbers come around meanwhile.
	// A segment lives for milliseconds in a building, and what it carries is checked.
	"tcp_timestamps": "0",
}

// Tune sets what a machine that fetches an image, and does nothing else, wants of its kernel otherwise, in the network namespace of the
// caller. A setting that cannot be made is no harm.
func Tune() {
	for name, value := range settings {
		_ = os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644)
	}
}

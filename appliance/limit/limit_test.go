package limit

import (
	"net/netip"
	"testing"
	"time"
)

func TestAnAddressMayAskSoOften(t *testing.T) {
	l := New(Config{PerSecond: 10, Burst: 5})
	now := time.Unix(1e9, 0)
	one, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for i := range 5 {
		if wait := l.Wait(one, now); wait != 0 {
			t.Fatalf("request %d waits %v", i+1, wait)
		}
	}
	if wait := l.Wait(one, now); wait != 100*time.Millisecond {
		t.Errorf("the sixth request at once waits %v", wait)
	}
	if wait := l.Wait(netip.MustParseAddr("::ffff:10.0.0.1"), now); wait == 0 {
		t.Error("the same address, written as IPv6, has a bucket of its own")
	}
	if wait := l.Wait(other, now); wait != 0 {
		t.Errorf("another address waits %v", wait)
	}
	passed := 0
	for range 100 { // ten seconds
		now = now.Add(100 * time.Millisecond)
		for range 3 {
			if l.Wait(one, now) == 0 {
				passed++
			}
		}
	}
	if passed != 100 {
		t.Errorf("%d requests passed in 10 s, of 10 a second", passed)
	}
	if l.Refusals() != 2+200 {
		t.Errorf("%d refusals", l.Refusals())
	}
}

func TestANetworkOfIPv6HasOneBucket(t *testing.T) {
	l := New(Config{PerSecond: 1, Burst: 1})
	now := time.Unix(1e9, 0)
	for i, c := range []struct {
		address string
		waits   bool
	}{{"2001:db8::1", false}, {"2001:db8::2", true}, {"2001:db8:0:1::1", false}, {"2001:db8::3%eth0", true}} {
		if wait := l.Wait(netip.MustParseAddr(c.address), now); wait > 0 != c.waits {
			t.Errorf("request %d, %s, waits %v", i, c.address, wait)
		}
	}
}

func TestAFloodOfAddressesTakesBoundedMemory(t *testing.T) {
	l := New(Config{PerSecond: 10, Burst: 5, Addresses: 1000})
	now := time.Unix(1e9, 0)
	passed := 0
	for i := range 100_000 {
		if l.Wait(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now) == 0 {
			passed++
		}
	}
	if len(l.due) > 1001 {
		t.Errorf("%d addresses are remembered", len(l.due))
	}
	if passed != 1005 { // each its first, and those without a place share a bucket
		t.Errorf("%d requests passed", passed)
	}
	if wait := l.Wait(netip.MustParseAddr("10.0.0.1"), now); wait != 0 {
		t.Error("an address that was there before the flood waits")
	}
	if wait := l.Wait(netip.MustParseAddr("10.9.9.9"), now.Add(2*time.Second)); wait != 0 || len(l.due) > 10 {
		t.Errorf("after the flood a stranger waits %v, and %d addresses are remembered", wait, len(l.due))
	}
}

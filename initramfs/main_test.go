package main

import (
	"strings"
	"testing"

	"seedbed/appliance/job"
)

// TestACardForWirelessNetworksIsNotWhatAPulledCableIsBlamedOn: no driver is told of only where the card that the machine booted from has none.
func TestACardForWirelessNetworksIsNotWhatAPulledCableIsBlamedOn(t *testing.T) {
	wireless := []string{"8086:7af0 at 0000:00:14.3"}
	for _, c := range []struct {
		code        string
		hasBootCard bool
		want        string
	}{
		{job.LeftNoLink, true, job.LeftNoLink},
		{job.LeftNoLink, false, job.LeftNoDriver},
		{job.LeftNoCard, false, job.LeftNoDriver},
		{job.LeftNoAddress, true, job.LeftNoAddress},
	} {
		code, said := withUnbound(c.code, "no link on eth0", wireless, c.hasBootCard)
		if code != c.want || !strings.HasSuffix(said, "no link on eth0") || strings.Contains(said, wireless[0]) != (c.want == job.LeftNoDriver) {
			t.Errorf("%s with a card that no driver took, that which it booted from found %v: %s, %q; want %s", c.code, c.hasBootCard, code, said, c.want)
		}
	}
}

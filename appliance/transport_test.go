package main

import (
	"testing"

	"github.com/spf13/pflag"

	"seedbed/appliance/job"
)

func TestRates(t *testing.T) {
	for s, want := range map[string]rate{
		"0": 0, "65536": 65536, "500k": 500e3, "12.5M": 12.5e6, "1G": 1e9, "100Mbit": 12.5e6, "2.5Gbit": 312.5e6, "1MiB": 1 << 20, "64KiB": 64 << 10, "3MB": 3e6,
	} {
		var r rate
		if err := r.Set(s); err != nil || r != want {
			t.Errorf("%q reads as %d, %v, want %d", s, r, err, want)
		}
	}
	for _, s := range []string{"", "M", "-1", "-1M", "ten", "1T", "NaN", "Inf", "1e30", "1", "65535", "10kbit", "5 M/s"} {
		if err := new(rate).Set(s); err == nil {
			t.Errorf("%q is a rate", s)
		}
	}
}

func TestNetworkFlags(t *testing.T) {
	read := func(args ...string) (n transportFlags, err error) {
		f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		n.flags(f)
		return n, f.Parse(args)
	}
	n, err := read("--swarm-peer-limit", "100Mbit", "--machine-limit", "30M", "--dscp", "8", "--congestion", "bbr", "--machine-nics", "all", "--hash-threads", "2")
	if err != nil {
		t.Fatal(err)
	}
	seeders, machines, err := n.settings()
	if err != nil {
		t.Fatal(err)
	}
	if seeders.PeerUploadLimit != 12.5e6 || seeders.DSCP != 8 || seeders.Congestion != "bbr" || seeders.UploadLimit != 0 || seeders.Shared == nil {
		t.Errorf("%+v", seeders)
	}
	want := job.Transport{UploadLimit: 30e6, DownloadLimit: 30e6, DSCP: 8, Congestion: "bbr", AllNICs: true, HashThreads: 2}
	if machines != want {
		t.Errorf("%+v, want %+v", machines, want)
	}
	if n, err := read(); err != nil {
		t.Error(err)
	} else if _, machines, err := n.settings(); err != nil || machines != (job.Transport{}) {
		t.Errorf("without flags: %+v, %v", machines, err)
	}
	for _, args := range [][]string{{"--dscp", "64"}, {"--machine-nics", "both"}, {"--congestion", "../x"}, {"--hash-threads", "-1"}} {
		n, err := read(args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := n.settings(); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

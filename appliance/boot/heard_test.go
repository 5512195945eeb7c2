package boot

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

// learn passes on what one appliance heard as they do: encoded.
func learn(t *testing.T, from, to *bench) {
	t.Helper()
	b, err := json.Marshal(from.Heard())
	if err != nil {
		t.Fatal(err)
	}
	var list []Heard
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	to.Learn(list)
}

func TestTokenIsGivenForAnExchangeThatAnotherApplianceHeard(t *testing.T) {
	one, two := newBench(t, Assignment{Run: RunAgent}), newBench(t, Assignment{Run: RunAgent})
	token := func(addr netip.Addr) error {
		_, err := two.token(t.Context(), machine, addr, netip.Addr{})
		return err
	}
	one.request()
	if token(machineAddr) == nil {
		t.Fatal("a token for an exchange that nobody heard")
	}
	learn(t, one, two)
	if err := token(machineAddr); err != nil {
		t.Error(err)
	}
	if token(machineAddr.Next()) == nil {
		t.Error("a token for another address")
	}
	learn(t, two, one) // what was learnt is not told on, for ever
	if list := two.Heard(); len(list) != 0 {
		t.Errorf("told on: %+v", list)
	}
	one.now, two.now = one.now.Add(time.Minute), two.now.Add(time.Minute)
	learn(t, one, two)
	two.now = two.now.Add(ExchangeTimeout)
	if token(machineAddr) == nil {
		t.Error("a token for an exchange of long ago")
	}
}

func TestLearningIsBounded(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	for _, h := range []Heard{
		{MAC: "nonsense", Addr: machineAddr}, {MAC: machine.String()}, {MAC: machine.String(), Addr: machineAddr, Ago: -time.Hour},
		{MAC: machine.String(), Addr: machineAddr, Ago: time.Hour}, {MAC: machine.String(), Addr: netip.MustParseAddr("fd77::1")},
	} {
		b.Learn([]Heard{h})
		if _, err := b.token(t.Context(), machine, machineAddr, netip.Addr{}); err == nil {
			t.Errorf("a token after %+v", h)
		}
	}
}

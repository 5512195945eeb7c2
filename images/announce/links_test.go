package announce

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestLinksRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Response{Links: &Links{
			Group: rapid.IntRange(0, maxGroups).Draw(t, "group"), Grouped: rapid.Bool().Draw(t, "grouped"),
			BytesPerSecond: rapid.Int64Range(0, maxRate).Draw(t, "rate"), MaxConnections: rapid.IntRange(0, maxConnections).Draw(t, "max"),
		}}
		if members := rapid.IntRange(0, maxMembers).Draw(t, "members"); members > 0 {
			r.Links.Share = Share{rapid.IntRange(0, members-1).Draw(t, "member"), members, rapid.IntRange(0, members-1).Draw(t, "more")}
		}
		want := map[netip.AddrPort]Role{}
		for i := range rapid.IntRange(0, 30).Draw(t, "peers") {
			a := netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:6881", i))
			if rapid.Bool().Draw(t, "v6") {
				a = netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%d]:6881", i))
			}
			role := Role(rapid.IntRange(0, int(endOfRoles)-1).Draw(t, "role"))
			r.Peers, r.Links.Roles = append(r.Peers, a), append(r.Links.Roles, role)
			want[a] = role
		}
		got, err := DecodeResponse(r.Encode())
		if err != nil || got.Links == nil || len(got.Peers) != len(want) {
			t.Fatalf("%+v, %v", got, err)
		}
		for i, a := range got.Peers {
			if got.Links.Roles[i] != want[a] {
				t.Errorf("%v is %d, want %d", a, got.Links.Roles[i], want[a])
			}
		}
		got.Links.Roles = r.Links.Roles
		if !reflect.DeepEqual(got.Links, r.Links) {
			t.Errorf("%+v, want %+v", got.Links, r.Links)
		}
	})
}

func TestLinksThatMakeNoSense(t *testing.T) {
	answer := func(links string) []byte {
		return []byte("d8:intervali1e5:peers6:\x01\x02\x03\x04\x1a\xe17:seedbed" + links + "e")
	}
	if got, err := DecodeResponse(answer("d5:groupi2e5:other2:ok5:roles1:\x01e")); err != nil || got.Links.Roles[0] != Upstream || got.Links.Group != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, links := range []string{
		"i1e", "de", "d5:roles0:e", "d5:roles2:\x00\x00e", "d5:roles1:\x05e", "d5:rolesi1ee", "d5:groupi-1e5:roles1:\x00e",
		"d5:group1:x5:roles1:\x00e", "d7:groupedi2e5:roles1:\x00e", "d4:ratei-1e5:roles1:\x00e", "d3:maxi65537e5:roles1:\x00e",
		"d5:roles1:\x005:shareli0ei1eee", "d5:roles1:\x005:shareli1ei1ei0eee", "d5:roles1:\x005:shareli0ei1ei1eee",
		"d5:roles1:\x005:shareli0ei0ei0eee", "d5:roles1:\x005:shareli-1ei1ei0eee", "d5:roles1:\x005:sharel1:ai1ei0eee",
		"d5:roles1:\x005:shareli0ei16777217ei0eee", "d5:roles1:\x005:sharei7ee",
	} {
		if got, err := DecodeResponse(answer(links)); err == nil {
			t.Errorf("%q reads as %+v", links, got.Links)
		}
	}
}

func FuzzDecodeLinks(f *testing.F) {
	f.Add(Response{Interval: 1}.Encode())
	f.Add(Response{Failure: "no"}.Encode())
	f.Add(Response{Peers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6881"), netip.MustParseAddrPort("[2001:db8::1]:6881")}, Links: &Links{
		Roles: []Role{Upstream, Appliance}, Group: 1, Grouped: true, Share: Share{1, 3, 1}, BytesPerSecond: 1e6, MaxConnections: 20}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeResponse(b)
		if err != nil || r.Failure != "" {
			return
		}
		if r.Links != nil && len(r.Links.Roles) != len(r.Peers) {
			t.Fatalf("%d roles of %d peers", len(r.Links.Roles), len(r.Peers))
		}
		for _, p := range r.Peers {
			if p.Addr().Is4In6() {
				return // travels as IPv4 the next time, and so in another place
			}
		}
		if again, err := DecodeResponse(r.Encode()); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v and %+v, %v", r, again, err)
		}
	})
}

package bootdoctor

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// seen makes a boot of words like "dhcp@0", "dhcp:shim@4", "tftp@5-9", each with the seconds when the step began and ended.
func seen(t *testing.T, appliance, words string) Seen {
	t.Helper()
	at := func(second float64) time.Time {
		return time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC).Add(time.Duration(second * float64(time.Second)))
	}
	s := Seen{Appliance: appliance, Boot: Boot{MAC: "m"}}
	for word := range strings.FieldsSeq(words) {
		what, when, _ := strings.Cut(word, "@")
		kind, loader, _ := strings.Cut(what, ":")
		from, to, long := strings.Cut(when, "-")
		var begin, end float64
		if _, err := fmt.Sscan(from, &begin); err != nil {
			t.Fatal(err)
		}
		if end = begin; long {
			if _, err := fmt.Sscan(to, &end); err != nil {
				t.Fatal(err)
			}
		}
		s.Steps = append(s.Steps, Step{Kind: Kind(kind), Loader: loader, By: ByFirmware, At: at(begin), Last: at(end), Count: 1 + int(end-begin)/4})
	}
	if len(s.Steps) > 0 {
		s.Began = s.Steps[0].At
	}
	return s
}

// words are boots as seen reads them, the latest first, with the appliance of each step behind it.
func words(boots []Boot) string {
	var list []string
	for _, b := range boots {
		var steps []string
		for _, s := range b.Steps {
			word := strings.TrimSuffix(string(s.Kind)+":"+s.Loader, ":")
			if s.Count > 1 {
				word += fmt.Sprintf("x%d", s.Count)
			}
			steps = append(steps, strings.TrimSpace(word+" "+s.Appliance))
		}
		list = append(list, strings.Join(steps, ", "))
	}
	return strings.Join(list, " | ")
}

func TestWhatTwoAppliancesSawOfOneBootIsOne(t *testing.T) {
	for _, test := range []struct {
		what, here, here2, there, there2, want string
	}{
		{what: "one alone", here: "dhcp:shim@0 tftp@2", want: "dhcp:shim, tftp"},
		{what: "each its own boots", here: "dhcp:shim@0 tftp@2", here2: "dhcp:shim@60", want: "dhcp:shim | dhcp:shim, tftp"},
		{what: "DHCP by both, the files of the other", here: "dhcp:shim@0-8 address@9", there: "dhcp:shim@0.1-8.1 address@9 4011@10 tftp@11-12 script@13",
			want: "dhcp:shimx3, address, 4011 B, tftp B, script B"},
		{what: "one that missed the first questions", here: "dhcp:shim@12", there: "dhcp:shim@0-12 tftp@14", want: "dhcp:shimx4, tftp B"},
		{what: "one offers nothing", here: "dhcp@0", there: "dhcp:shim@0 tftp@1", want: "dhcp:shim, tftp B"},
		{what: "each offers another loader", here: "dhcp:ipxe@0", there: "dhcp:shim@0.2", want: "dhcp:ipxe, dhcp:shim B"},
		{what: "the end of a boot alone", here: "dhcp:shim@0 tftp@2", there: "kernel@8-20 agent-dhcp@30", want: "dhcp:shim, tftp, kernelx4 B, agent-dhcp B"},
		{what: "the end of the boot before", here: "dhcp:shim@0 tftp@2", here2: "dhcp:shim@60 tftp@62", there: "kernel@8", want: "dhcp:shim, tftp | dhcp:shim, tftp, kernel B"},
		{what: "two boots that both saw", here: "dhcp:shim@0 tftp@2", here2: "dhcp:shim@60", there: "dhcp:shim@0", there2: "dhcp:shim@60 tftp@62", want: "dhcp:shim, tftp B | dhcp:shim, tftp"},
		{what: "much later", here: "dhcp:shim@0", there: "kernel@900", want: "kernel B | dhcp:shim"},
		{what: "nothing", here: "", want: ""},
	} {
		var list []Seen
		for _, s := range []Seen{seen(t, "", test.here), seen(t, "", test.here2), seen(t, "B", test.there), seen(t, "B", test.there2)} {
			list = append([]Seen{s}, list...)
		}
		if got := words(Merge(list)); got != test.want {
			t.Errorf("%s: %s, want %s", test.what, got, test.want)
		}
	}
}

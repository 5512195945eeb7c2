package fleet

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestAGroupsFormIsToldAllThatIsWrongAtOnce(t *testing.T) {
	f := &Fleet{}
	if wrong := f.CheckGroup(GroupOrder{Kind: new(Room), Rows: new(4), Windows: &[]string{"mon-fri 18:00-07:00"}, Broadcast: new("10.1.2.255")}); len(wrong) > 0 {
		t.Errorf("a good order is refused: %v", wrong)
	}
	wrong := f.CheckGroup(GroupOrder{Kind: new(GroupKind("hall")), Rows: new(-1), Limit: new(-2), Windows: &[]string{"daily 08:00-12:00", "someday"}, Broadcast: new("10.1.2")})
	if got, want := slices.Sorted(maps.Keys(wrong)), []string{"broadcast", "kind", "limit", "rows", "windows"}; !slices.Equal(got, want) {
		t.Errorf("wrong are %v, want %v", got, want)
	}
	many := slices.Repeat([]string{"mon-fri 18:00-07:00"}, maxWindows+1)
	wrong = f.CheckGroup(GroupOrder{Uplink: new(strings.Repeat("u", maxName+1)), Windows: &many})
	if got, want := slices.Sorted(maps.Keys(wrong)), []string{"uplink", "windows"}; !slices.Equal(got, want) {
		t.Errorf("too long are %v, want %v", got, want)
	}
	if wrong = f.CheckGroup(GroupOrder{Uplink: new("to\x1b[2Jbuilding b")}); wrong["uplink"] == "" {
		t.Error("an uplink that steers a terminal is taken")
	}
}

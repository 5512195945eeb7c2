package agent

import "testing"

func TestBusyShareOfProcessors(t *testing.T) {
	for text, want := range map[string][2]int64{
		"cpu  100 20 30 400 50 6 7 8 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n": {171, 621},
		"cpu  1 2 3 4 5\n":            {6, 15},
		"intr 1 2 3 4 5 6 7\n":        {-1},
		"cpu  1 2 x 4 5 6 7 8 9 10\n": {-1},
		"":                            {-1},
	} {
		busy, all, ok := parseStat([]byte(text))
		if ok != (want[0] >= 0) || ok && [2]int64{busy, all} != want {
			t.Errorf("%q: %d of %d, %v", text, busy, all, ok)
		}
	}
	var p processors
	if share := p.busy(); share < 0 || share > 1 || p.unavailable || p.allTicks == 0 {
		t.Errorf("this host: %+v", &p)
	}
}

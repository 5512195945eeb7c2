package board

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// boards are those that people meet.
var boards = map[string]Board{
	"start": {About: "52:54:00:77:00:10", Level: Working, Word: "starting", Message: "waiting for the network: eth0: no link, check the cable"},
	"admit": {Name: "pc-770010", ID: "86ecd2a47a31", Code: "4711-BX", About: "52:54:00:77:00:10, 10.77.0.113", Level: Waiting, Word: "new here",
		Message: "This machine waits to be admitted. Compare the code with the one in the console, or run `seedbed machine admit 4711-BX`."},
	"idle": {Name: "pc-770010", Level: Waiting, Word: "no job", Message: "There is no job for this machine yet; it waits for one."},
	"copy": {Name: "room-12-07", Image: "windows-11:3", Disk: "nvme0n1, 512.1 GB", About: "52:54:00:77:00:10, 10.77.0.113", Level: Working, Word: "copying",
		BytesPerSecond: 112.4e6, Done: 23_500_000_000, Total: 50_000_000_000, Left: 236 * time.Second,
		Facts: "23.5 of 50.0 GB, 14 peers, from the appliance 1.2 GB, from peers 22.3 GB"},
	"copy-with-long-facts": {Name: "room-12-07", Image: "windows-11-education-24h2:17", Disk: "nvme0n1, 2.0 TB, serial S6S2NS0T412345-KINGSTON-SNV2S",
		About: "52:54:00:77:00:10, 2001:db8:1234:5678:5054:ff:fe77:10", Level: Working, Word: "copying", BytesPerSecond: 112.4e6, Done: 23_500_000_000,
		Total: 50_000_000_000, Left: 236 * time.Second, Message: "Do not switch off: until this is done the disk starts no system.",
		Facts: "23.5 of 50.0 GB, 14 peers, from the appliance 1.2 GB, from peers 12.3 GB, from seed nodes 8.9 GB, from this disk 1.1 GB"},
	"copy-slowly": {Name: "teachers-room-in-the-east", Image: "windows-11:3", Disk: "sda, 8.0 TB", Level: Working, Word: "copying", BytesPerSecond: 1.4e6,
		Done: 900_000_000, Total: 50_000_000_000, Left: 10 * time.Hour, Notice: "the appliance does not answer; the work goes on"},
	"paused": {Name: "教室一", ID: "86ecd2a47a31", Image: "windows-11:3", Level: Waiting, Word: "paused", Headline: "disk too small",
		Message: "image windows-11:3 needs a disk of 51200000000 bytes (51.2 GB), and there is sda (ata, serial S3, 32017047552 bytes, 32.0 GB). Nothing was written. " +
			"Put in a larger disk: the job goes on by itself."},
	"failed": {Name: "pc-770010", Image: "golden:1", Disk: "sda, 512.1 GB", Level: Failed, Word: "failed", Headline: "disk error", Done: 5, Total: 10,
		Message: "write sda at 1048576: input/output error. The disk or its cable is faulty: replace it and deploy again. Then type \"reboot\" and Enter."},
	"done": {Name: "Büro-7", Image: "golden:1", Disk: "sda, 512.1 GB", Level: Done, Word: "done", Facts: "sent 3.2 GB to 11 peers",
		Message: "The system is installed. This machine helps the others and restarts when they need it no more; you may switch it off."},
}

// sizes of consoles: VGA text, a framebuffer of 800 x 600, one of 1920 x 1080 with the font of 8 x 16.
var sizes = [][2]int{{80, 25}, {100, 37}, {240, 67}}

func TestBoards(t *testing.T) {
	for name, b := range boards {
		for _, size := range sizes {
			file := filepath.Join("testdata", fmt.Sprintf("%s-%dx%d.txt", name, size[0], size[1]))
			got := Draw(b, size[0], size[1]).String()
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is now:\n%s", file, got)
			}
		}
	}
}

// random makes a board of texts of any runes and lengths.
func random(r *rand.Rand) Board {
	text := func(most int) string {
		kinds := []string{"abc DEF-019_", "äÖß·", "教室 üñ…→", "\x1b[2J\n\t\x00", " W-W.W "}
		var b strings.Builder
		for n := r.IntN(most + 1); b.Len() < n; {
			k := []rune(kinds[r.IntN(len(kinds))])
			b.WriteRune(k[r.IntN(len(k))])
		}
		return b.String()
	}
	b := Board{Name: text(40), ID: text(12), About: text(60), Level: Level(r.IntN(4)), Word: text(20), Headline: text(30), Image: text(80), Disk: text(40),
		Done: r.Int64N(200) - 50, Total: r.Int64N(3) * 50, Left: time.Duration(r.Int64N(int64(100 * time.Hour))), Facts: text(200), Message: text(900), Notice: text(300)}
	if r.IntN(4) == 0 {
		b.Code = text(12)
	}
	return b
}

func TestNothingIsWiderOrHigherThanTheConsole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		b := random(r)
		columns, rows := LeastColumns+r.IntN(250), LeastRows+r.IntN(120)
		c := Draw(b, columns, rows)
		if c.Columns != columns || c.Rows+LogRows(rows) != rows || c.Rows < 1 {
			t.Fatalf("a console of %d x %d has a board of %d x %d", columns, rows, c.Columns, c.Rows)
		}
		lines := strings.Split(strings.TrimSuffix(c.String(), "\n"), "\n")
		if len(lines) != c.Rows || lines[c.Rows-1] != strings.Repeat("─", columns) {
			t.Fatalf("%d lines of %d, the last one is %q", len(lines), c.Rows, lines[len(lines)-1])
		}
		for _, l := range lines {
			if length(l) > columns {
				t.Fatalf("a line has %d cells of %d: %q", length(l), columns, l)
			}
			for _, rune := range l {
				if rune < ' ' || rune >= 0x7f && !strings.ContainsRune(glyphs, rune) {
					t.Fatalf("the rune %q is not in the kernel's fonts: %q", rune, l)
				}
			}
		}
	}
}

// TestEveryFactIsOnTheSmallestScreenThatPeopleHave: nothing of the boards is left out at 80 x 25.
func TestEveryFactIsOnTheSmallestScreenThatPeopleHave(t *testing.T) {
	for name, b := range boards {
		text := strings.Join(strings.Fields(Draw(b, 80, 25).String()), " ")
		for _, want := range []string{b.Image, b.Disk, b.About, b.Facts, b.Message, b.Notice} {
			if want = strings.Join(strings.Fields(shown(want)), " "); !strings.Contains(text, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, Draw(b, 80, 25))
			}
		}
	}
}

// TestLinesOfFactsEndBetweenFacts: a serial number or an address is on one line, and in full.
func TestLinesOfFactsEndBetweenFacts(t *testing.T) {
	for _, c := range []struct {
		text, indent string
		width        int
		want         []string
	}{
		{"a, b · c", "", 40, []string{"a, b · c"}},
		{"image golden:1 · disk sda, 5 GB · 10.0.0.1", "  ", 32, []string{"image golden:1 · disk sda, 5 GB", "  10.0.0.1"}},
		{"x · disk nvme0n1, 512.1 GB, serial 12345678 · 10.0.0.1", "  ", 30, []string{"x · disk nvme0n1, 512.1 GB,", "  serial 12345678 · 10.0.0.1"}},
		{"23.5 of 50.0 GB, 14 peers, from peers 22.3 GB", "", 30, []string{"23.5 of 50.0 GB, 14 peers,", "from peers 22.3 GB"}},
		{"one two three four, five", "", 10, []string{"one two", "three", "four, five"}},
		{"0123456789abcdef · x", "  ", 12, []string{"0123456789", "  abcdef · x"}},
		{"", "  ", 12, nil},
	} {
		if got := wrapFacts(c.text, c.width, c.indent); !slices.Equal(got, c.want) {
			t.Errorf("%q in %d cells is %q, not %q", c.text, c.width, got, c.want)
		}
	}
}

func TestANameThatTheFontLacksIsTheID(t *testing.T) {
	for name, want := range map[string]string{"room-7": "room-7", "Büro": "Büro", "教室一": "86ecd2a47a31", "PC 教": "86ecd2a47a31", "": "86ecd2a47a31"} {
		if got := (&Board{Name: name, ID: "86ecd2a47a31"}).title(); got != want {
			t.Errorf("%q is shown as %q", name, got)
		}
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "", 300 * time.Millisecond: "1 s", 59 * time.Second: "59 s", 61 * time.Second: "2 min",
		99 * time.Minute: "99 min", 100 * time.Minute: "1:40 h", 27 * time.Hour: "27:00 h"} {
		if got := short(d); got != want {
			t.Errorf("%v is %q, not %q", d, got, want)
		}
	}
}

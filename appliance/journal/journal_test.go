package journal_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/journal"
	"seedbed/images"
)

// book is a site's records, made up.
type book struct {
	open     []fleet.JobView
	ended    []*fleet.Job
	receipts map[string]*job.Receipt
	machines []fleet.MachineView
	asked    int // of the history
}

func (b *book) Jobs() []fleet.JobView         { return b.open }
func (b *book) Machines() []fleet.MachineView { return b.machines }

func (b *book) History(_ context.Context, q fleet.JobQuery) (list []*fleet.Job, err error) {
	b.asked++
	after := q.Behind == ""
	for _, j := range b.ended {
		if after && (q.Machine == "" || q.Machine == j.Machine) && (q.Deployment == "" || q.Deployment == j.Deployment) && len(list) < q.Limit {
			list = append(list, j)
		}
		after = after || j.ID == q.Behind
	}
	return list, nil
}

func (b *book) ReceiptOf(_ context.Context, id string) (*fleet.Receipt, error) {
	says := b.receipts[id]
	if says == nil {
		return nil, nil
	}
	raw, err := json.Marshal(says)
	return &fleet.Receipt{Job: id, Receipt: raw}, err
}

var began = time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)

func (b *book) add(id, machine string, state job.State, last job.Report) *fleet.Job {
	j := &fleet.Job{ID: id, Machine: machine, Deployment: "d", Kind: job.Deploy, State: state, ImageName: "debian:1", Image: images.Sum([]byte("image")),
		Created: began, Started: began, Ended: began.Add(100 * time.Second), Last: last}
	b.ended = append(b.ended, j)
	return j
}

func written(t testing.TB, b *book, q journal.Query) string {
	t.Helper()
	var out bytes.Buffer
	if err := journal.Write(t.Context(), &out, b, q); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// rows reads a journal as Go does, each row by the names of its columns.
func rows(t testing.TB, text string) (list []map[string]string) {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all[1:] {
		m := map[string]string{}
		for i, name := range all[0] {
			m[name] = r[i]
		}
		list = append(list, m)
	}
	return list
}

func machine(id, name string) fleet.MachineView {
	return fleet.MachineView{Machine: fleet.Machine{ID: id, Name: name}}
}

// example has a machine that is done, one that failed, one at work and one whose image was not read back.
func example() *book {
	b := &book{receipts: map[string]*job.Receipt{}, machines: []fleet.MachineView{machine("m1", "one"), machine("m2", `two, "left"`)}}
	b.add("j1", "m1", job.Succeeded, job.Report{FromAppliance: 1000, FromPeers: 500, FromSeeds: 40, ToPeers: 70, Held: 2000, Resumed: 1000, Written: 1200})
	b.receipts["j1"] = &job.Receipt{Table: images.Sum([]byte("t")), Roots: []job.PartitionRoot{{Number: 1, Root: images.Sum([]byte("1"))}, {Number: 3, Root: images.Sum([]byte("3"))}}, Kept: []int{2}}
	failed := b.add("j2", "m2", job.Failed, job.Report{FromAppliance: 7})
	failed.Code, failed.Reason = "too-small", "=cmd: the disk, \"sda\",\r\nis too small"
	b.add("j3", "m9", job.Succeeded, job.Report{FromPeers: 11})
	b.receipts["j3"] = &job.Receipt{Roots: []job.PartitionRoot{{Number: 2, Root: images.Sum([]byte("2"))}}, Unproven: []job.Unproven{{Number: 1, Proven: 3, Total: 9}, {Number: 4, Total: 9}}}
	b.open = []fleet.JobView{{ID: "j4", Machine: "m1", Deployment: "d", State: job.Running, Kind: job.Deploy, Started: began, Reported: began.Add(10 * time.Second), Held: 500, FromAppliance: 3},
		{ID: "other", Machine: "m1", Deployment: "e", State: job.Waiting}, {ID: "j1", Machine: "m1", Deployment: "d", State: job.Succeeded}}
	return b
}

func TestTheJournalOfADeployment(t *testing.T) {
	text := written(t, example(), journal.Query{Deployment: "d"})
	if strings.Count(text, "\n") != strings.Count(text, "\r\n") || !strings.HasSuffix(text, "\r\n") {
		t.Errorf("lines end otherwise than RFC 4180 has it: %q", text)
	}
	got := []string{}
	for _, r := range rows(t, text) {
		got = append(got, strings.Join([]string{r["time"], r["job"], r["name"], r["partition"], r["state"], r["from_appliance"], r["from_peers"], r["from_seeds"], r["rate"],
			fmt.Sprint(len(r["hash"])), r["verified"], r["error_class"], r["text"]}, "|"))
	}
	want := []string{
		"2026-05-04T08:00:10Z|j4|one||running|3|0|0|50|0|||",
		"2026-05-04T08:01:40Z|j1|one||succeeded|1000|500|40|10|64|yes||",
		"2026-05-04T08:01:40Z|j1|one|1|succeeded|||||64|yes||",
		"2026-05-04T08:01:40Z|j1|one|2|succeeded|||||0|kept||the partition was left as it was",
		"2026-05-04T08:01:40Z|j1|one|3|succeeded|||||64|yes||",
		`2026-05-04T08:01:40Z|j2|two, "left"||failed|7|0|0||0||too-small|'=cmd: the disk, "sda",  is too small`,
		"2026-05-04T08:01:40Z|j3|||succeeded|0|11|0||0|partly||",
		"2026-05-04T08:01:40Z|j3||1|succeeded|||||0|partly||3 of 9 bytes were read back",
		"2026-05-04T08:01:40Z|j3||2|succeeded|||||64|yes||",
		"2026-05-04T08:01:40Z|j3||4|succeeded|||||0|no||0 of 9 bytes were read back",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := len(rows(t, written(t, example(), journal.Query{Machine: "m2"}))); n != 1 {
		t.Errorf("%d rows of machine m2", n)
	}
}

// TestALongJournalIsNotHeldInMemory but a page of it, and no job is lost or told twice at a page's end.
func TestALongJournalIsNotHeldInMemory(t *testing.T) {
	b := &book{}
	for i := range 1001 {
		b.add(fmt.Sprintf("j%04d", i), "m", job.Failed, job.Report{FromAppliance: 1})
	}
	seen, sum := map[string]bool{}, 0
	for _, r := range rows(t, written(t, b, journal.Query{})) {
		n, err := strconv.Atoi(r["from_appliance"])
		if err != nil || seen[r["job"]] {
			t.Fatalf("%v, %v", r, err)
		}
		seen[r["job"]], sum = true, sum+n
	}
	if sum != 1001 || b.asked != 6 {
		t.Errorf("%d jobs in %d pages", sum, b.asked)
	}
	full := errors.New("no space")
	if err := journal.Write(t.Context(), &bounded{left: 20000, err: full}, b, journal.Query{}); !errors.Is(err, full) {
		t.Errorf("a reader that is gone: %v", err)
	}
	if b.asked > 9 {
		t.Errorf("the journal was read on, %d pages", b.asked)
	}
}

type bounded struct {
	left int
	err  error
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, b.err
	}
	return len(p), nil
}

// python reads a table with Python's csv module and returns its rows as JSON has them.
func python(t testing.TB, text string) (all [][]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", "-c", "import csv,io,json,sys; sys.stdout.write(json.dumps(list(csv.reader(io.TextIOWrapper(sys.stdin.buffer,encoding='utf-8',newline=''),strict=True))))")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPythonReadsTheSame(t *testing.T) {
	b := example()
	for i, text := range []string{`"`, `a"b,c`, "\x00\x01", "é漢字😀", "a;b\tc", " blank ", "'", "\r", "\xff\xfe", "=1+1", "line\nline"} {
		j := b.add(fmt.Sprintf("x%d", i), "m1", job.Failed, job.Report{})
		j.Reason, j.ImageName = text, text+text
	}
	text := written(t, b, journal.Query{})
	own, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := python(t, text); !slices.EqualFunc(got, own, slices.Equal) {
		t.Errorf("Python reads\n%q\nand Go\n%q", got, own)
	}
}

// FuzzWrite checks that whatever people and machines wrote comes back as it went out, on one line, and as no formula.
func FuzzWrite(f *testing.F) {
	for _, s := range []string{"", "plain", `a"b`, "a,b", "a\r\nb", "\r", "=1", "'=1", ";=1", "\xff", "＝1", " -1", "\u2028", "\u00a0"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, reason string) {
		b := &book{machines: []fleet.MachineView{machine("m", name)}}
		b.add("j", "m", job.Failed, job.Report{}).Reason = reason
		var out bytes.Buffer
		if err := journal.Write(context.Background(), &out, b, journal.Query{}); err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(out.Bytes(), []byte("\n")); n != 2 {
			t.Fatalf("%d lines: %q", n, out.String())
		}
		all, err := csv.NewReader(&out).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range journal.Columns {
			want := map[string]string{"name": name, "text": reason}
			if w, is := want[c.Name]; is && all[1][i] != fleet.Harmless(journal.Line(w)) {
				t.Errorf("%s %q comes back as %q", c.Name, w, all[1][i])
			}
			if first := strings.TrimLeft(all[1][i], " "); first != "" && strings.ContainsRune("=+-@＝＋－＠", []rune(first)[0]) {
				t.Errorf("%s is a formula: %q", c.Name, all[1][i])
			}
		}
	})
}

func TestEveryRowHasAllColumns(t *testing.T) {
	r := csv.NewReader(strings.NewReader(written(t, example(), journal.Query{})))
	for {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil || len(row) != len(journal.Columns) {
			t.Fatalf("%q, %v", row, err)
		}
	}
}

// TestTheManualTellsEveryColumn in the same words and order.
func TestTheManualTellsEveryColumn(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n### Journals\n")
	chapter, _, found := strings.Cut(rest, "\n## ")
	if !found {
		t.Fatal("the manual has no chapter on journals")
	}
	var want strings.Builder
	for _, c := range journal.Columns {
		fmt.Fprintf(&want, "| `%s` | %s |\n", c.Name, c.Means)
	}
	if !strings.Contains(chapter, "\n| --- | --- |\n"+want.String()+"\n") {
		t.Errorf("the manual's columns are not\n%s", &want)
	}
}

// The bytes of a machine that began anew are those of all its claims.
func TestTheBytesOfEarlierClaimsCount(t *testing.T) {
	earlier := fleet.Moved{FromAppliance: 1, FromPeers: 2, FromSeeds: 3, ToPeers: 4, Written: 5}
	b := &book{open: []fleet.JobView{{ID: "j2", State: job.Running, FromAppliance: 10, FromPeers: 10, FromSeeds: 10, ToPeers: 10, Written: 10, Earlier: earlier}}}
	b.add("j1", "m1", job.Failed, job.Report{FromAppliance: 10, FromPeers: 10, FromSeeds: 10, ToPeers: 10, Written: 10}).Earlier = earlier
	for _, r := range rows(t, written(t, b, journal.Query{})) {
		if r["from_appliance"] != "11" || r["from_peers"] != "12" || r["from_seeds"] != "13" || r["to_peers"] != "14" || r["written"] != "15" {
			t.Errorf("%v", r)
		}
	}
}

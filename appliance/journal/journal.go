// Package journal writes what jobs did as a table (CSV, RFC 4180): a row for each job, and one for each partition that its receipt
// proves.
package journal

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// Source is what the journal is made of. *fleet.Fleet is one.
type Source interface {
	Jobs() []fleet.JobView
	Machines() []fleet.MachineView
	History(ctx context.Context, q fleet.JobQuery) ([]*fleet.Job, error)
	ReceiptOf(ctx context.Context, job string) (*fleet.Receipt, error)
}

// Query says whose journal is asked for; empty fields ask for all.
type Query struct {
	Machine, Deployment string // IDs
}

// Kind of the table as RFC 4180 §3 and RFC 7111 register it.
const Kind = "text/csv; charset=utf-8; header=present"

// at once so many jobs are held in memory.
const atOnce = 200

// timeFormat is that of the times: RFC 3339 in UTC, as spreadsheets read it too.
const timeFormat = "2006-01-02T15:04:05Z"

// Write writes the journal: the jobs that have not ended in the order of their creation, and then those that have, the latest first.
// Each row is one line, ended by CR LF, cells with separators or quotes are quoted, and a cell that a spreadsheet would compute has an
// apostrophe before it, see fleet.Harmless. An error of the writer, or of the records, is returned at once.
func Write(ctx context.Context, w io.Writer, s Source, q Query) error {
	t := &table{out: csv.NewWriter(w), source: s, names: map[string]string{}}
	t.out.UseCRLF = true
	header := make([]string, len(Columns))
	for i, c := range Columns {
		header[i] = c.Name
	}
	if err := t.out.Write(header); err != nil {
		return err
	}
	for _, m := range s.Machines() {
		t.names[m.ID] = m.Name
	}
	open := map[string]bool{}
	for _, j := range s.Jobs() {
		if j.State.Ended() || q.Machine != "" && j.Machine != q.Machine || q.Deployment != "" && j.Deployment != q.Deployment {
			continue
		}
		open[j.ID] = true
		if err := t.job(rowOfView(&j), nil); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	page := fleet.JobQuery{Machine: q.Machine, Deployment: q.Deployment, Limit: atOnce}
	for {
		list, err := s.History(ctx, page)
		if err != nil {
			return err
		}
		for _, j := range list {
			if open[j.ID] { // it ended just now
				continue
			}
			if err := t.ended(ctx, j); err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
		if len(list) < atOnce {
			return nil
		}
		page.Before, page.Behind = list[len(list)-1].Ended, list[len(list)-1].ID
	}
}

// table is one journal on its way.
type table struct {
	out    *csv.Writer
	source Source
	names  map[string]string // of machines, by ID
}

func (t *table) flush() error {
	t.out.Flush()
	return t.out.Error()
}

// ended writes a job that has ended.
func (t *table) ended(ctx context.Context, j *fleet.Job) error {
	var says *job.Receipt
	if j.State == job.Succeeded {
		receipt, err := t.source.ReceiptOf(ctx, j.ID)
		if err != nil {
			return err
		}
		if receipt != nil {
			if says, err = receipt.Decode(); err != nil {
				return err
			}
		}
	}
	return t.job(rowOfJob(j), says)
}

// row is what the table says of a job as a whole.
type row struct {
	at                               time.Time
	machine, deployment, id          string
	kind                             job.Kind
	image                            string
	digest                           images.Digest
	state                            job.State
	appliance, peers, seeds, toPeers int64
	written, right                   int64
	took                             time.Duration
	code, text                       string
}

func rowOfView(j *fleet.JobView) row {
	at := j.Reported
	if at.IsZero() {
		at = j.Created
	}
	all := j.Earlier.And(&job.Report{FromAppliance: j.FromAppliance, FromPeers: j.FromPeers, FromSeeds: j.FromSeeds, ToPeers: j.ToPeers, Written: j.Written})
	r := row{at, j.Machine, j.Deployment, j.ID, j.Kind, j.ImageName, j.Image, j.State, all.FromAppliance, all.FromPeers, all.FromSeeds, all.ToPeers,
		all.Written, j.Held - j.Resumed, 0, j.Code, j.Reason}
	r.right = worked(j.Kind, r.right, j.Verified, j.Done)
	if !j.Started.IsZero() && j.Reported.After(j.Started) {
		r.took = j.Reported.Sub(j.Started)
	}
	return r
}

func rowOfJob(j *fleet.Job) row {
	last, all := &j.Last, j.Earlier.And(&j.Last)
	r := row{j.Ended, j.Machine, j.Deployment, j.ID, j.Kind, j.ImageName, j.Image, j.State, all.FromAppliance, all.FromPeers, all.FromSeeds, all.ToPeers,
		all.Written, last.Held - last.Resumed, 0, j.Code, j.Reason}
	r.right = worked(j.Kind, r.right, last.Verified, last.Done)
	if !j.Started.IsZero() && j.Ended.After(j.Started) {
		r.took = j.Ended.Sub(j.Started)
	}
	return r
}

// worked returns the bytes that the rate of a job of a kind is of.
func worked(kind job.Kind, right, verified, done int64) int64 {
	switch kind {
	case job.Capture, job.WipeDisk:
		return done
	case job.VerifyDisk:
		return verified
	}
	return right
}

// job writes the rows of a job; says is its receipt, nil where it has none.
func (t *table) job(r row, says *job.Receipt) error {
	hash, verified, text := "", "", r.text
	digest := ""
	if !r.digest.IsZero() {
		digest = r.digest.String()
	}
	if r.kind == job.Capture && r.state == job.Succeeded {
		hash = digest
	}
	if says != nil {
		verified = wholly(r.kind, says)
		if !says.Table.IsZero() {
			hash = says.Table.String()
		}
	}
	rate := ""
	if r.took > 0 && r.right > 0 {
		rate = number(int64(float64(r.right) / r.took.Seconds()))
	}
	head := []string{r.at.UTC().Format(timeFormat), r.machine, t.names[r.machine], r.deployment, r.id, string(r.kind), r.image, digest}
	whole := []string{"", string(r.state), number(r.appliance), number(r.peers), number(r.seeds), number(r.toPeers), number(r.written), rate, hash, verified, r.code, text}
	if err := t.row(slices.Concat(head, whole)); err != nil {
		return err
	}
	for _, p := range partitions(says) {
		cells := []string{strconv.Itoa(p.number), string(r.state), "", "", "", "", "", "", p.hash, p.verified, "", p.text}
		if err := t.row(slices.Concat(head, cells)); err != nil {
			return err
		}
	}
	return nil
}

// part is a partition of a receipt.
type part struct {
	number               int
	hash, verified, text string
}

// partitions returns those that a receipt names, in their order.
func partitions(says *job.Receipt) (list []part) {
	if says == nil {
		return nil
	}
	for _, p := range says.Roots {
		list = append(list, part{p.Number, p.Root.String(), "yes", ""})
	}
	for _, p := range says.Unproven {
		verified := "partly"
		if p.Proven == 0 {
			verified = "no"
		}
		list = append(list, part{p.Number, "", verified, fmt.Sprintf("%d of %d bytes were read back", p.Proven, p.Total)})
	}
	for _, n := range says.Kept {
		list = append(list, part{n, "", "kept", "the partition was left as it was"})
	}
	slices.SortStableFunc(list, func(a, b part) int { return a.number - b.number })
	return list
}

// wholly says how much of all that a job of a kind was about was read back.
func wholly(kind job.Kind, says *job.Receipt) string {
	var proven int64
	for _, p := range says.Unproven {
		proven += p.Proven
	}
	switch {
	case kind == job.WipeDisk: // samples
		return "partly"
	case !kind.OfImage():
		return ""
	case len(says.Unproven) == 0:
		return "yes"
	case proven == 0 && len(says.Roots) == 0:
		return "no"
	}
	return "partly"
}

// row writes one line.
func (t *table) row(cells []string) error {
	for i := range cells {
		if Columns[i].text {
			cells[i] = fleet.Harmless(Line(cells[i]))
		}
	}
	return t.out.Write(cells)
}

// Line is a text on one line: what is no letter, sign or blank becomes a blank, and what is no UTF-8 the sign for that.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if r != ' ' && !unicode.IsGraphic(r) || unicode.Is(unicode.Zs, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

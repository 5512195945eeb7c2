package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"seedbed/appliance/api"
)

// table prints columns for people.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	fmt.Fprintln(t.w, strings.Join(header, "\t"))
	return t
}

func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, plain(fmt.Sprint(c)))
	}
	fmt.Fprintln(t.w)
}

// plain takes away what would steer a terminal: machines and guests give names to themselves.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// plainLines is plain of each line.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = plain(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (t *table) flush() error { return t.w.Flush() }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// tell prints what a command did: a sentence, or v as JSON.
func tell(cmd *cobra.Command, asJSON bool, v any, format string, a ...any) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), v)
	}
	_, err := fmt.Fprint(cmd.OutOrStdout(), plainLines(fmt.Sprintf(format, a...)))
	return err
}

// named is the JSON of a command about one thing of which nothing else is told.
type named struct {
	Name string `json:"name"`
}

// bytesText writes a number of bytes in binary units: "1.5 GiB".
func bytesText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, units := float64(n)/1024, "KMGTPE"
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// meter shows the progress of a long operation on a terminal, and nothing elsewhere.
type meter struct {
	bars *mpb.Progress // nil: nothing is shown
	bar  *mpb.Bar
}

func newMeter(f *os.File, what string) *meter {
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return &meter{}
	}
	m := &meter{bars: mpb.New(mpb.WithOutput(f), mpb.WithWidth(50))}
	m.bar = m.bars.AddBar(0, mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f of % .1f"), decor.Name(", "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f"),
			decor.Name(", "), decor.AverageETA(decor.ET_STYLE_GO), decor.Name(" left")))
	return m
}

func (m *meter) update(p api.Progress) {
	if m.bars != nil {
		m.bar.SetTotal(p.Total, false)
		m.bar.SetCurrent(p.Done)
	}
}

// end leaves the last line on the terminal and waits for the meter's goroutines.
func (m *meter) end() {
	if m.bars != nil {
		if !m.bar.Completed() {
			m.bar.Abort(false)
		}
		m.bars.Wait()
	}
}

package bootdoctor

import "strings"

// Table is the table of cases for the manual, as Markdown, in the order in which they are tried.
func Table() string {
	var b strings.Builder
	b.WriteString("| case | evidence on the wire | evidence left for the next boot | verdict |\n| --- | --- | --- | --- |\n")
	for _, c := range Cases {
		verdict := c.Sentence
		if len(c.Causes) > 0 {
			verdict += ". Either: " + strings.Join(c.Causes, "; or: ")
		}
		if c.Next != "" {
			verdict += ". Do: " + c.Next
		}
		for _, cell := range []string{"`" + c.Name + "`", c.Wire, c.Leaves, verdict} {
			b.WriteString("| " + strings.ReplaceAll(cell, "|", "\\|") + " ")
		}
		b.WriteString("|\n")
	}
	return b.String()
}

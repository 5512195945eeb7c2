package fleet

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
)

// A table of machines is somebody's file: whatever it holds, reading it ends, and what was read is exported without a formula.
func FuzzReadLines(f *testing.F) {
	f.Add("mac,name,groups,row,column,notes,admitted\n52:54:00:00:00:01,one,lab;tag,1,2,by the door,true\n")
	f.Add("mac\r\n52:54:00:00:00:01\r\n\r\n")
	f.Add("\ufeffname;mac\n'=1+1;52-54-00-00-00-01\n")
	f.Add("mac,name\n52:54:00:00:00:01,\"a\nb\"\n")
	f.Add("sep=;\nmac;name;;\n52-54-00-00-00-01;''=1;;\n;;;\n525400000002;x|=1,+2;;\n")
	f.Add("\xff\xfem\x00a\x00c\x00\n\x00")
	f.Fuzz(func(t *testing.T, table string) {
		lines, err := readLines(strings.NewReader(table))
		if err != nil {
			return
		}
		for _, l := range lines {
			if l.mac == "" || l.order.Name == nil {
				continue
			}
			field := Harmless(*l.order.Name)
			for _, part := range strings.FieldsFunc(field, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
				if first := strings.TrimLeft(part, " "); first != "" && strings.IndexAny(first, formulas) == 0 {
					t.Errorf("%q is exported as %q", *l.order.Name, field)
				}
			}
			if back := plain(field); back != *l.order.Name {
				t.Errorf("%q comes back as %q", *l.order.Name, back)
			}
			var out bytes.Buffer
			w := csv.NewWriter(&out)
			if err := w.Write([]string{field}); err != nil {
				t.Error(err)
			}
		}
	})
}

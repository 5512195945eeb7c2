package fleet

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// maxDifference bounds what is said of one field that changed, in bytes: of longer ones the name alone.
const maxDifference = 200

// differences says which fields of a record changed, and what they are now: ": limit 3, windows none"; "" where none did. Both are
// encoded as records are.
func differences(was, is any) string {
	before, after := fieldsOf(was), fieldsOf(is)
	names := map[string]bool{}
	for _, fields := range []map[string]json.RawMessage{before, after} {
		for name := range fields {
			names[name] = true
		}
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		now := after[name]
		switch {
		case bytes.Equal(before[name], now):
		case now == nil:
			list = append(list, name+" none")
		case len(now) > maxDifference:
			list = append(list, name)
		default:
			list = append(list, name+" "+string(now))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list, ", ")
}

func fieldsOf(record any) (fields map[string]json.RawMessage) {
	b, err := json.Marshal(record)
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		return nil // it is refused where it is written
	}
	return fields
}

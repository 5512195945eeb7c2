package api

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/fleet"
)

// Page is a part of a list. Next, where it is not empty, is the cursor of the part after it.
type Page[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"The cursor of the next page; there is none after the last."`
}

// Cut says which part of a list is asked for.
type Cut struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many items at most."`
	Cursor string `query:"cursor" maxLength:"200" doc:"What the page before said as next."`
}

// paged is the answer with a page.
type paged[T any] struct {
	Body Page[T]
}

// page cuts a list. key orders it and is different for each item: a page goes on behind the last key of the one before, so that what
// comes and goes meanwhile neither repeats nor hides an item.
func page[T any](list []T, c Cut, key func(T) string) (*paged[T], error) {
	after, err := base64.RawURLEncoding.DecodeString(c.Cursor)
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "the cursor is none that this appliance gave; begin with the first page"}
	}
	type keyed struct {
		key  string
		item T
	}
	all := make([]keyed, 0, len(list))
	for _, item := range list {
		if k := key(item); k > string(after) {
			all = append(all, keyed{k, item})
		}
	}
	slices.SortFunc(all, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	out := &paged[T]{Page[T]{Items: []T{}}}
	for i, k := range all {
		if i == c.Limit {
			out.Body.Next = base64.RawURLEncoding.EncodeToString([]byte(all[i-1].key))
			break
		}
		out.Body.Items = append(out.Body.Items, k.item)
	}
	return out, nil
}

// datedKey orders by time, then by ID.
func datedKey(at time.Time, id string) string {
	n := int64(0)
	if at.Year() >= 1970 && at.Year() < 2260 {
		n = at.UnixNano()
	}
	return fmt.Sprintf("%019d-%s", n, id)
}

// Version is the header of an answer that tells which version of a record it is about.
type Version struct {
	ETag string `header:"ETag" doc:"The version of the record, for If-Match."`
}

func etag(v int64) Version { return Version{strconv.Quote(strconv.FormatInt(v, 10))} }

// Match is the header of a request that is to be refused where somebody else changed the record meanwhile.
type Match struct {
	IfMatch string `header:"If-Match" maxLength:"64" doc:"The ETag of the record that the change was decided by; without it, any."`
}

// wanted returns the version that the change was decided by, 0 for any.
func (m Match) wanted() (int64, error) {
	text := strings.TrimSpace(m.IfMatch)
	if text == "" || text == "*" {
		return 0, nil
	}
	v, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(text, "W/"), `"`), 10, 64)
	switch {
	case err != nil || v < 0:
		return 0, &fleet.Refusal{Code: fleet.CodeChanged, Detail: "If-Match is no ETag that this appliance gave; look again"}
	case v == 0:
		return fleet.Unmade, nil
	}
	return v, nil
}

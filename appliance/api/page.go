package api

import (
	"context"
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

// Version is the header of an answer that tells which version of a record it is about; held adds a sum of the answer.
type Version struct {
	ETag string `header:"ETag" doc:"The version of the record, for If-Match, and a sum of the answer, for If-None-Match."`
}

func etag(v int64) Version { return Version{strconv.Quote(strconv.FormatInt(v, 10))} }

// Match is the header of a request that is to be refused where somebody else changed the record meanwhile.
type Match struct {
	IfMatch string `header:"If-Match" maxLength:"1024" doc:"The ETag of the record that the change was decided by, or several with commas between; without it, or with *, any."`
}

// wanted returns the version that the change was decided by, 0 for any. Where the header names several, that is the present one, if it
// is among them; what changes in between is refused with the change itself. A weak ETag is none of this appliance's, and compares
// with nothing (RFC 9110 §13.1.1, §8.8.3.2).
func (m Match) wanted(present func() (int64, error)) (int64, error) {
	if text := strings.TrimSpace(m.IfMatch); text == "" || text == "*" {
		return 0, nil
	}
	tags, err := entityTags(m.IfMatch)
	if err != nil {
		return 0, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "If-Match cannot be read: " + err.Error()}
	}
	var versions []int64
	for _, tag := range tags {
		text, _, _ := strings.Cut(tag.opaque, "-") // reports change the sum behind it each second, and are nobody's decision
		v, err := strconv.ParseInt(text, 10, 64)
		if err == nil && v >= 0 && strconv.FormatInt(v, 10) == text && !tag.weak {
			versions = append(versions, v)
		}
	}
	if len(versions) == 0 {
		return 0, &fleet.Refusal{Code: fleet.CodeChanged, Detail: "If-Match is no ETag that this appliance gave; look again"}
	}
	v := versions[0]
	if len(versions) > 1 {
		if v, err = present(); err != nil {
			return 0, err
		}
		if !slices.Contains(versions, v) {
			return 0, &fleet.Refusal{Code: fleet.CodeChanged, Detail: "the record has none of the versions that If-Match names; look again"}
		}
	}
	if v == 0 {
		return fleet.Unmade, nil
	}
	return v, nil
}

// expecting returns the context of a change that is made only to the version that If-Match names.
func (m Match) expecting(ctx context.Context, present func() (int64, error)) (context.Context, error) {
	version, err := m.wanted(present)
	return fleet.Expecting(ctx, version), err
}

// entityTag is a version of an answer: what stands between the quotes of an ETag.
type entityTag struct {
	opaque string
	weak   bool
}

// entityTags reads a list of them (RFC 9110 §8.8.3).
func entityTags(list string) (tags []entityTag, err error) {
	rest := strings.TrimLeft(list, " \t,")
	for rest != "" {
		tag, weak := strings.CutPrefix(rest, "W/")
		tag, quoted := strings.CutPrefix(tag, `"`)
		tag, more, ended := strings.Cut(tag, `"`)
		if !quoted || !ended {
			return nil, fmt.Errorf("an ETag is written %s, with its quotes", strconv.Quote("5"))
		}
		tags = append(tags, entityTag{tag, weak})
		next := strings.TrimLeft(more, " \t")
		if next != "" && next[0] != ',' {
			return nil, fmt.Errorf("there is no comma behind the ETag %q", tag)
		}
		rest = strings.TrimLeft(next, " \t,")
	}
	return tags, nil
}

package announce

import (
	"errors"
	"fmt"
)

// Role is what a peer is to the one who asks.
type Role byte

// Roles, as they travel. Upstream and Downstream are two views of one link.
const (
	Inside     Role = iota // of the same group: each may fetch from the other
	Upstream               // is fetched from only, and only pieces of the Share
	Downstream             // is served only
	SeedNode               // hands out beside the appliances
	Appliance              // an appliance's seeder
	endOfRoles
)

// Links is what a tracker with a topology says of a peer's links. Clients that do not know it pass it over: it is one
// more key of the answer, "seedbed", a dictionary.
type Links struct {
	// Roles are those of Response.Peers, which are all peers that the one who asks may be linked with.
	Roles []Role
	// Group is the index of its group. Grouped says that there is more than one, so that a peer which is not named may be
	// one of another group.
	Group   int
	Grouped bool
	// Share are the pieces that it fetches from upstream.
	Share Share
	// BytesPerSecond bounds what it fetches from upstream over all links; zero is no limit.
	BytesPerSecond int64
	// MaxConnections bounds its links.
	MaxConnections int
}

// Share are the pieces whose index modulo Members is Member or one of the More residues behind it; the zero value is none.
type Share struct {
	Member, Members, More int
}

// Bounds of what is accepted.
const (
	maxGroups      = 1 << 20
	maxMembers     = 1 << 24
	maxConnections = 1 << 16
	maxRate        = 1 << 50
)

// encode returns the dictionary; order are the indexes of the peers as they travel.
func (l *Links) encode(order []int) map[string]any {
	roles := make([]byte, 0, len(order))
	for _, i := range order {
		roles = append(roles, byte(l.Roles[i]))
	}
	d := map[string]any{"roles": roles, "group": l.Group, "max": l.MaxConnections}
	if l.Grouped {
		d["grouped"] = 1
	}
	if s := l.Share; s.Members > 0 {
		d["share"] = []any{s.Member, s.Members, s.More}
	}
	if l.BytesPerSecond > 0 {
		d["rate"] = l.BytesPerSecond
	}
	return d
}

// decodeLinks reads the dictionary of an answer with so many peers. Keys that are not known are passed over.
func decodeLinks(v any, peers int) (*Links, error) {
	d, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("tracker's answer: seedbed is no dictionary")
	}
	r := linksReader{d: d}
	l := &Links{
		Group: int(r.number("group", 0, maxGroups)), Grouped: r.number("grouped", 0, 1) == 1,
		BytesPerSecond: r.number("rate", 0, maxRate), MaxConnections: int(r.number("max", 0, maxConnections)),
	}
	roles, _ := d["roles"].(string)
	if len(roles) != peers {
		r.fail("%d roles of %d peers", len(roles), peers)
	}
	for _, b := range []byte(roles) {
		if Role(b) >= endOfRoles {
			r.fail("role %d", b)
		}
		l.Roles = append(l.Roles, Role(b))
	}
	l.Share = r.share()
	return l, r.err
}

// linksReader reads values and keeps its first error.
type linksReader struct {
	d   map[string]any
	err error
}

func (r *linksReader) fail(format string, a ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("tracker's answer: "+format, a...)
	}
}

// number reads a number within bounds; one that is missing is zero.
func (r *linksReader) number(key string, low, high int64) int64 {
	v, there := r.d[key]
	n, ok := v.(int64)
	if there && (!ok || n < low || n > high) {
		r.fail("%s is not a number from %d to %d", key, low, high)
		return 0
	}
	return n
}

func (r *linksReader) share() (s Share) {
	v, there := r.d["share"]
	if !there {
		return s
	}
	list, _ := v.([]any)
	if len(list) != 3 {
		r.fail("share is no list of three numbers")
		return s
	}
	for i, to := range []*int{&s.Member, &s.Members, &s.More} {
		n, ok := list[i].(int64)
		if !ok || n < 0 || n > maxMembers {
			r.fail("share is no list of three numbers")
			return Share{}
		}
		*to = int(n)
	}
	if s.Members == 0 || s.Member >= s.Members || s.More >= s.Members {
		r.fail("share %d+%d of %d", s.Member, s.More, s.Members)
		return Share{}
	}
	return s
}

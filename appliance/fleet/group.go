package fleet

import (
	"slices"
	"strings"
	"time"

	"seedbed/appliance/queue"
)

// GroupKind says what machines of a group have in common.
type GroupKind string

const (
	Room GroupKind = "room" // they stand in one room; a machine has one room at most
	Line GroupKind = "line" // they stand at one production line
	Tag  GroupKind = "tag"  // anything else
)

// Group is a set of machines by a name that people gave it. ID is the name in lower case.
type Group struct {
	ID      string    `json:"id"`
	Version int64     `json:"version"`
	Name    string    `json:"name"`
	Kind    GroupKind `json:"kind"`
	Notes   string    `json:"notes,omitempty"`
	// Limit is how many of its machines are at work at once; 0 is no limit.
	Limit int `json:"limit,omitempty"`
	// Windows are the times in which jobs of its machines may begin, as queue.ParseWindow reads them; none is any time.
	Windows []string `json:"windows,omitempty"`
	// Uplink is the link that content for its machines crosses, UplinkLimit how many of those behind it are at work at once,
	// in whichever groups; 0 is no limit.
	Uplink      string `json:"uplink,omitempty"`
	UplinkLimit int    `json:"uplink_limit,omitempty"`
	// Broadcast is the address to which packets go that wake its machines: "10.1.2.255"; empty is those of all
	// networks that the appliance is in.
	Broadcast string `json:"broadcast,omitempty"`
	// Rows and Columns are those of a room's plan, by which Seat counts; 0 is not drawn.
	Rows    int `json:"rows,omitempty"`
	Columns int `json:"columns,omitempty"`
	// KeepClean, if set, has the disks of its machines verified, and repaired, at every boot.
	KeepClean *KeepClean `json:"keep_clean,omitempty"`
	Created   time.Time  `json:"created"`
}

// KeepClean is what is done at every boot of a group's machines.
type KeepClean struct {
	// Image is name, name:version or the beginning of a digest; empty is what was deployed on the machine last.
	Image string `json:"image,omitempty"`
}

// Seat is where a machine stands in the plan of its room, from 1.
type Seat struct {
	Row    int `json:"row"`
	Column int `json:"column"`
}

func (g *Group) Ref() Key     { return Key{KindGroup, g.ID} }
func (g *Group) Row() *int64  { return &g.Version }
func (g *Group) Shelf() Shelf { return Shelf{} }
func (g *Group) copy() Record {
	own := *g
	own.Windows = slices.Clone(g.Windows)
	return &own
}

// GroupID is the ID of a group with that name.
func GroupID(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// windows returns the group's windows; one that cannot be read, which no change lets in, never opens.
func (g *Group) windows(zone *time.Location) (list []queue.Window) {
	for _, text := range g.Windows {
		w, err := queue.ParseWindow(text, zone)
		if err != nil {
			w = queue.Window{}
		}
		list = append(list, w)
	}
	return list
}

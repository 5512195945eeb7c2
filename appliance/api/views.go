package api

import (
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// Duration is a length of time as Go writes it: "90s", "1h30m0s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no length of time; one is written 90s or 1h30m", b)
	}
	*d = Duration(v)
	return nil
}

// Schema implements huma.SchemaProvider.
func (d Duration) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Description: "A length of time as Go writes it.", Examples: []any{"1h30m0s"}, MaxLength: new(64)}
}

// The types of this file are those of the fleet with lengths of time as people write them: a field of the outer type takes the
// place of the inner one of the same name.

// Job is a job with what is known of it.
type Job struct {
	fleet.JobView
	Left Duration `json:"left,omitempty" doc:"How long the rest of a capture takes at the present rate."`
}

func viewJob(j fleet.JobView) Job { return Job{j, Duration(j.Left)} }

// Inventory is what a machine is.
type Inventory struct {
	job.Inventory
	LinkWait Duration `json:"link_wait" doc:"How long the network card took from link up to a DHCP answer."`
}

// Machine is a machine with what is known of it.
type Machine struct {
	fleet.MachineView
	Inventory *Inventory `json:"inventory,omitempty"`
}

func viewMachine(m fleet.MachineView) Machine {
	v := Machine{MachineView: m}
	if i := m.Inventory; i != nil {
		v.Inventory = &Inventory{*i, Duration(i.LinkWait)}
	}
	return v
}

// Deployment is a deployment with the number of its jobs in each state.
type Deployment struct {
	fleet.Deployment
	SeedFor Duration          `json:"seed_for"`
	Jobs    map[job.State]int `json:"jobs,omitempty" doc:"How many of its jobs are in each state; those of the last 30 days."`
}

// Open reports whether it has jobs that have not ended.
func (d *Deployment) Open() bool {
	for state, n := range d.Jobs {
		if n > 0 && !state.Ended() {
			return true
		}
	}
	return false
}

// Order asks for a deployment.
type Order struct {
	fleet.Order
	All     bool     `json:"all,omitempty" doc:"Each machine of the site, those seen later too; else machines and groups are named."`
	SeedFor Duration `json:"seed_for,omitempty" doc:"How long a finished machine serves others at most; 1m0s if not said."`
}

func (o Order) plain() fleet.Order {
	o.Order.All, o.Order.SeedFor = o.All, time.Duration(o.SeedFor)
	return o.Order
}

// TokenOrder asks for a guest's token.
type TokenOrder struct {
	fleet.TokenOrder
	Uses    int      `json:"uses,omitempty" doc:"How many programs may join by it; 1 if not said."`
	Expires Duration `json:"expires,omitempty" doc:"How long programs may join by it; 24h if not said."`
}

// KeyOrder asks for an API token.
type KeyOrder struct {
	fleet.KeyOrder
	Expires Duration `json:"expires,omitempty" doc:"How long it is good; 2160h (90 days) if not said."`
}

// NewKey is an API token that was just made.
type NewKey struct {
	fleet.KeyView
	Secret string `json:"secret" doc:"What goes into the header Authorization after Bearer. It is told only now."`
}

// GroupPatch asks for changes to a group: fields that are not given stay.
type GroupPatch struct {
	fleet.GroupOrder
	Name string `json:"name,omitempty" doc:"Groups are not renamed: empty, or the name that it has."`
}

// UserPatch asks for changes to a user: fields that are not given stay.
type UserPatch struct {
	fleet.UserOrder
	Name string `json:"name,omitempty" doc:"Users are not renamed: empty, or the name that it has."`
}

// PruneRequest asks to remove what no image uses.
type PruneRequest struct {
	PruneOrder
	Grace Duration `json:"grace,omitempty" doc:"How long what nothing uses stays after it was marked; at least what is safe."`
}

// Login is a name with its password.
type Login struct {
	Name     string `json:"name" maxLength:"64"`
	Password string `json:"password" maxLength:"256"`
}

// Me is who asks.
type Me struct {
	Name  string     `json:"name"`
	Role  fleet.Role `json:"role"`
	Token string     `json:"token,omitempty" doc:"The ID of the API token by which the request came."`
	// CSRF goes with each request that changes something, in the header X-CSRF-Token, where a cookie says who asks.
	CSRF    string    `json:"csrf,omitempty"`
	Expires time.Time `json:"expires,omitzero" doc:"When the stay ends, after a login."`
}

// Password asks for another password of one's own.
type Password struct {
	Old string `json:"old" maxLength:"256"`
	New string `json:"new" maxLength:"256"`
}

// Names are machines, by ID, name, MAC or serial number, and groups.
type Names struct {
	Machines []string `json:"machines,omitempty"`
	Groups   []string `json:"groups,omitempty"`
}

// Count is how many records a change changed.
type Count struct {
	Count int `json:"count"`
}

// RolledBack says what a rollback began.
type RolledBack struct {
	Deployments []Deployment `json:"deployments"`
	Left        int          `json:"left" doc:"Machines that held nothing before which is known, or got another image since: they stay as they are."`
}

// Priority is another priority of a job.
type Priority struct {
	Priority int `json:"priority" minimum:"-1000" maximum:"1000"`
}

package fleet

import "context"

// Role says what a person, or a program by its token, may do. Each may what those before it may.
type Role string

const (
	RoleNone     Role = ""
	RoleViewer   Role = "viewer"   // sees everything but secrets
	RoleOperator Role = "operator" // deploys, captures, admits, edits machines and groups
	RoleAdmin    Role = "admin"    // users, tokens, settings, removal of images
)

// rank orders the roles; 0 may nothing.
func (r Role) rank() int {
	switch r {
	case RoleViewer:
		return 1
	case RoleOperator:
		return 2
	case RoleAdmin:
		return 3
	}
	return 0
}

// Valid reports whether there is such a role.
func (r Role) Valid() bool { return r.rank() > 0 }

// Includes reports whether the role may what needs another one.
func (r Role) Includes(needed Role) bool { return r.rank() >= needed.rank() && r.rank() > 0 }

// Actor is who asks the fleet for something. Events name it.
type Actor struct {
	Name string // of the user: "alice"; "root" of who uses the local socket
	Role Role
	From string // address of the caller, "" on the appliance's own host
	// Token is the ID of the API token by which the request came, "" if none.
	Token string
}

type actorKey struct{}

// As returns a context in which the fleet is asked in somebody's name. Where nobody is named the fleet itself acts, which
// may everything: so every door to the outside names who came through it.
func As(ctx context.Context, a Actor) context.Context { return context.WithValue(ctx, actorKey{}, a) }

// ActorOf returns who a context names; known is false where that is the fleet itself.
func ActorOf(ctx context.Context) (a Actor, known bool) {
	a, known = ctx.Value(actorKey{}).(Actor)
	return a, known
}

// may returns a Refusal unless who asks has the role.
func may(ctx context.Context, needed Role, what string) error {
	a, known := ActorOf(ctx)
	if !known || a.Role.Includes(needed) {
		return nil
	}
	return refuse(CodeForbidden, "%s has the role %s; to %s needs the role %s: ask an administrator", a.Name, orNone(a.Role), what, needed)
}

func orNone(r Role) Role {
	if r == RoleNone {
		return "none"
	}
	return r
}

// by names in an event who asked for it.
func by(ctx context.Context, e Event) Event {
	if a, known := ActorOf(ctx); known {
		e.Actor, e.From = a.Name, a.From
	}
	return e
}

// May returns a Refusal unless who asks has the role. It is for doors to what is not the fleet's own, such as images.
func May(ctx context.Context, needed Role, what string) error { return may(ctx, needed, what) }

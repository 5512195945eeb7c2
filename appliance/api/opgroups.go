package api

import (
	"context"

	"seedbed/appliance/fleet"
)

func groupAnswer(g *fleet.GroupView, err error) (*versioned[*fleet.GroupView], error) {
	if err != nil {
		return nil, err
	}
	return &versioned[*fleet.GroupView]{etag(g.Version), g}, nil
}

// groupVersion returns what looks up the version of a group.
func (o *Operators) groupVersion(name string) func() (int64, error) {
	return func() (int64, error) {
		g, err := o.fleet.Group(name)
		if err != nil {
			return 0, err
		}
		return g.Version, nil
	}
}

func (o *Operators) addGroups() {
	f := o.fleet
	add(o, "GET", "/groups", "listGroups", "List the groups", func(_ context.Context, in *Cut) (*paged[fleet.GroupView], error) {
		return page(f.Groups(), *in, func(g fleet.GroupView) string { return g.ID })
	})
	add(o, "POST", "/groups", "newGroup", "Make a group", func(ctx context.Context, in *struct{ Body fleet.GroupOrder }) (*versioned[*fleet.GroupView], error) {
		return groupAnswer(f.NewGroup(ctx, in.Body))
	}, made)
	add(o, "GET", "/groups/{name}", "getGroup", "Show a group", func(_ context.Context, in *Named) (*versioned[*fleet.GroupView], error) {
		return groupAnswer(f.Group(in.Name))
	})
	add(o, "PATCH", "/groups/{name}", "editGroup", "Change a group", func(ctx context.Context, in *struct {
		MatchedName
		Body GroupPatch
	}) (*versioned[*fleet.GroupView], error) {
		version, err := in.wanted(o.groupVersion(in.Name))
		if err != nil {
			return nil, err
		}
		if err := unrenamed(in.Name, in.Body.Name, "group"); err != nil {
			return nil, err
		}
		return groupAnswer(f.EditGroup(ctx, in.Name, version, in.Body.GroupOrder))
	}, matched)
	add(o, "DELETE", "/groups/{name}", "removeGroup", "Remove a group; its machines stay", func(ctx context.Context, in *MatchedName) (*nothing, error) {
		ctx, err := in.expecting(ctx, o.groupVersion(in.Name))
		if err != nil {
			return nil, err
		}
		return done(f.RemoveGroup(ctx, in.Name))
	}, matched)
	for _, c := range []struct {
		in                bool
		verb, id, summary string
	}{{true, "add", "addToGroup", "Put machines into a group"}, {false, "remove", "removeFromGroup", "Take machines out of a group"}} {
		add(o, "POST", "/groups/{name}/"+c.verb, c.id, c.summary, func(ctx context.Context, in *struct {
			MatchedName
			Body struct {
				Machines []string `json:"machines" minItems:"1" nullable:"false"`
			}
		}) (*answer[Count], error) {
			ctx, err := in.expecting(ctx, o.groupVersion(in.Name))
			if err != nil {
				return nil, err
			}
			n, err := f.GroupMachines(ctx, in.Name, in.Body.Machines, c.in)
			return body(Count{n}, err)
		}, matched)
	}
}

// unrenamed refuses another name for what is known by its name.
func unrenamed(name, other, what string) error {
	if other == "" || fleet.GroupID(name) == fleet.GroupID(other) {
		return nil
	}
	return &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "a " + what + " is not renamed; make " + other + ", and remove " + name}
}

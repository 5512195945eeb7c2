package console

import (
	"net/http"
	"slices"
	"strconv"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// groupPage is one room, line or other group: its plan with the machines in their seats, its limits, times and policies.
var groupPage = &page{path: "/groups/{group}", name: "group", under: "rooms", title: groupTitle, data: groupData, routes: []route{
	{pattern: "GET /rooms/new", role: fleet.RoleOperator, serve: newGroupDialog},
	{pattern: "POST /groups", role: fleet.RoleOperator, serve: newGroup},
	{pattern: "POST /groups/{group}/edit", role: fleet.RoleOperator, serve: editGroup},
	{pattern: "GET /groups/{group}/remove", role: fleet.RoleOperator, serve: removeGroupDialog},
	{pattern: "POST /groups/{group}/remove", role: fleet.RoleOperator, serve: removeGroup},
	{pattern: "POST /groups/{group}/seat", role: fleet.RoleOperator, serve: seatMachine},
	{pattern: "POST /groups/{group}/machines", role: fleet.RoleOperator, serve: groupMachines},
}}

// groupKinds are the kinds of groups with their names.
var groupKinds = []struct {
	Kind fleet.GroupKind
	Name string
}{{fleet.Room, text("Room")}, {fleet.Line, text("Production line")}, {fleet.Tag, text("Other group")}}

// GroupKind returns the name of a kind of group in the visit's language.
func (v *visit) GroupKind(kind fleet.GroupKind) string {
	for _, k := range groupKinds {
		if k.Kind == kind {
			return v.t(k.Name)
		}
	}
	return string(kind)
}

// groupView is what the page shows.
type groupView struct {
	*fleet.GroupView
	Form   *groupForm
	Places *places
}

func groupTitle(v *visit, data any) string {
	if g, ok := data.(*groupView); ok {
		return g.Name
	}
	return v.t("Room")
}

func groupData(c *console, v *visit) (any, error) {
	g, err := c.Fleet.Group(v.PathValue("group"))
	if err != nil {
		return nil, err
	}
	view := &groupView{GroupView: g, Places: c.places(v, g)}
	view.Places.choose(fleet.Seat{}, false)
	if view.Form, err = c.groupForm(v, g); err != nil {
		return nil, err
	}
	return view, nil
}

func newGroupDialog(c *console, v *visit) (*answer, error) {
	form, err := c.groupForm(v, nil)
	if err != nil {
		return nil, err
	}
	return show("group", "new", form), nil
}

// newGroup makes a group, and goes on to its page, where its machines get their seats.
func newGroup(c *console, v *visit) (*answer, error) {
	form, err := c.groupForm(v, nil)
	if err != nil {
		return nil, err
	}
	order := form.read(c, v)
	order.Name = form.field("name").Value
	if !form.wrong(v) {
		g, err := c.Fleet.NewGroup(v.Context(), order)
		if err == nil {
			said := v.t("%s is made. Put its machines into their seats now.", g.Name)
			if g.Kind != fleet.Room || g.Rows == 0 || g.Columns == 0 {
				said = v.t("%s is made.", g.Name)
			}
			return goTo(groupPath(g.ID), said), nil
		}
		if api.StatusOf(err) == http.StatusInternalServerError {
			return nil, err
		}
		form.refuse(v, err)
	}
	return v.again(form, "newform")
}

// editGroup changes a group. What is wrong stands at its field, and what was typed stays.
func editGroup(c *console, v *visit) (*answer, error) {
	g, err := c.Fleet.Group(v.PathValue("group"))
	if err != nil {
		return nil, err
	}
	form, err := c.groupForm(v, g)
	if err != nil {
		return nil, err
	}
	if form.Version, err = strconv.ParseInt(v.FormValue("version"), 10, 64); err != nil || form.Version < 1 {
		return nil, v.invalid(text("Load the page again: the form is not whole."))
	}
	order := form.read(c, v)
	if !form.wrong(v) {
		if g, err = c.Fleet.EditGroup(v.Context(), g.ID, form.Version, order); err == nil {
			return goTo(groupPath(g.ID), v.t("%s is changed.", g.Name)), nil
		}
		if api.StatusOf(err) == http.StatusInternalServerError {
			return nil, err
		}
		form.refuse(v, err)
	}
	return v.again(form, "form")
}

// again shows a form with what is wrong with it.
func (v *visit) again(form *groupForm, block string) (*answer, error) {
	if !v.htmx() {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: form.Refused}
	}
	return show("group", block, form), nil
}

func removeGroupDialog(c *console, v *visit) (*answer, error) {
	g, err := c.Fleet.Group(v.PathValue("group"))
	if err != nil {
		return nil, err
	}
	return show("group", "remove", g), nil
}

func removeGroup(c *console, v *visit) (*answer, error) {
	g, err := c.Fleet.Group(v.PathValue("group"))
	if err != nil {
		return nil, err
	}
	ctx, err := v.expecting()
	if err != nil {
		return nil, err
	}
	if err := c.Fleet.RemoveGroup(ctx, g.ID); err != nil {
		return nil, err
	}
	return goTo("/rooms", v.t("%s is removed.", g.Name)), nil
}

// otherGroups are the groups that are no rooms.
func otherGroups(all []fleet.GroupView) []fleet.GroupView {
	return slices.DeleteFunc(slices.Clone(all), func(g fleet.GroupView) bool { return g.Kind == fleet.Room })
}

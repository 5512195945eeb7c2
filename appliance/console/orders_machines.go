package console

import (
	"cmp"
	"slices"
	"strings"

	"seedbed/appliance/fleet"
)

// machinesRoutes have somebody who comes from an image choose the machines that get it; then comes the dialog of the rooms.
var machinesRoutes = []route{
	{pattern: "GET /orders/deploy/machines", role: fleet.RoleOperator, serve: machinesDialog},
	{pattern: "POST /orders/deploy/machines", role: fleet.RoleOperator, serve: machinesChosen},
}

// machinesForm is what the dialog begins with.
type machinesForm struct {
	Image string
	Rooms []machinesRoom
}

// machinesRoom are the admitted machines of a room, or of none.
type machinesRoom struct {
	Name     string // "" is no room
	Machines []machineOption
}

// machineOption is a machine that can be chosen, with what it holds: "debian:1".
type machineOption struct{ ID, Name, Holds string }

func machinesDialog(c *console, v *visit) (*answer, error) {
	f := machinesForm{Image: v.FormValue("image"), Rooms: c.machinesByRoom()}
	return show("orders", "machines", f), nil
}

// machinesByRoom are the machines that a deployment can be for, the rooms by name and those without one last.
func (c *console) machinesByRoom() (list []machinesRoom) {
	rooms, at := map[string]string{}, map[string]int{}
	for _, g := range c.Fleet.Groups() {
		if g.Kind == fleet.Room {
			rooms[g.ID] = g.Name
		}
	}
	for _, m := range c.Fleet.Machines() {
		if !m.Admitted {
			continue
		}
		room, o := "", machineOption{ID: m.ID, Name: m.Name}
		for _, g := range m.Groups {
			room = cmp.Or(room, rooms[g])
		}
		if m.Deployed != nil {
			o.Holds = m.Deployed.ImageName
		}
		i, ok := at[room]
		if !ok {
			i, at[room], list = len(list), len(list), append(list, machinesRoom{Name: room})
		}
		list[i].Machines = append(list[i].Machines, o)
	}
	slices.SortFunc(list, func(a, b machinesRoom) int {
		if a.Name == "" || b.Name == "" {
			return -strings.Compare(a.Name, b.Name)
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, r := range list {
		slices.SortFunc(r.Machines, func(a, b machineOption) int { return strings.Compare(a.Name, b.Name) })
	}
	return list
}

// machinesChosen goes on with the machines that were chosen.
func machinesChosen(c *console, v *visit) (*answer, error) {
	if len(machineIDs(v)) == 0 {
		return nil, v.invalid(text("No machine is chosen. Choose a room or single machines."))
	}
	a, err := deployDialog(c, v)
	if err == nil {
		v.w.Header().Set("HX-Retarget", "#dialog")
		v.w.Header().Set("HX-Reswap", "innerHTML")
	}
	return a, err
}

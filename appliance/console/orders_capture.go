package console

import (
	"slices"
	"strings"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// captureRoutes make an image of a machine's disk.
var captureRoutes = []route{
	{pattern: "GET /orders/capture", role: fleet.RoleOperator, serve: captureDialog},
	{pattern: "POST /orders/capture", role: fleet.RoleOperator, serve: capture},
}

// captureForm is what the dialog begins with.
type captureForm struct {
	Machine named
	Disks   []diskOption
	Images  []api.ImageListing
	Names   []string // of images that there are
}

type diskOption struct{ Serial, Text string }

func captureDialog(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	if len(machines) != 1 {
		return nil, v.invalid(text("An image is made of one machine; %d are chosen."), len(machines))
	}
	f := captureForm{Machine: machines[0], Disks: c.disksOf(machines)}
	if f.Images, err = c.imageOptions(v); err != nil {
		return nil, err
	}
	for _, i := range f.Images {
		if !slices.Contains(f.Names, i.Name) {
			f.Names = append(f.Names, i.Name)
		}
	}
	return show("orders", "capture", f), nil
}

// disksOf are the disks that can be named of the only machine that is chosen; nil where there are more, or none has told its disks.
func (c *console) disksOf(machines chosen) (list []diskOption) {
	if len(machines) != 1 {
		return nil
	}
	m, err := c.Fleet.Machine(machines[0].ID)
	if err != nil || m.Inventory == nil {
		return nil
	}
	for i := range m.Inventory.Disks {
		if d := &m.Inventory.Disks[i]; d.Serial != "" {
			list = append(list, diskOption{d.Serial, diskText(d)})
		}
	}
	return list
}

func capture(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	if len(machines) != 1 {
		return nil, v.invalid(text("An image is made of one machine; %d are chosen."), len(machines))
	}
	o := fleet.CaptureOrder{Machine: machines[0].ID, DiskSerial: v.FormValue("disk"), After: v.FormValue("after")}
	o.CaptureOrder = job.CaptureOrder{Name: strings.TrimSpace(v.FormValue("name")), Version: strings.TrimSpace(v.FormValue("version"))}
	if o.Name == "" {
		return nil, v.invalid(text("Give the image a name."))
	}
	j, err := c.Fleet.Capture(v.Context(), o)
	if err != nil {
		return nil, err
	}
	return v.ordered(result{
		Title: v.t("%s is being captured", j.ImageName), Text: v.t("%s reads its disk when it boots from the network. Nothing on it is changed.", machines[0].Name),
		Links: []link{{"/machines/" + machines[0].ID, v.t("See the machine")}, {"/images", v.t("See the images")}},
	}), nil
}

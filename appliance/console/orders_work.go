package console

import (
	"strings"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// workRoutes have machines verify, repair or wipe their disks, or tell what they are.
var workRoutes = []route{
	{pattern: "GET /orders/verify", role: fleet.RoleOperator, serve: workDialog}, {pattern: "POST /orders/verify", role: fleet.RoleOperator, serve: work},
	{pattern: "GET /orders/repair", role: fleet.RoleOperator, serve: workDialog}, {pattern: "POST /orders/repair", role: fleet.RoleOperator, serve: work},
	{pattern: "GET /orders/wipe", role: fleet.RoleOperator, serve: workDialog}, {pattern: "POST /orders/wipe", role: fleet.RoleOperator, serve: work},
	{pattern: "GET /orders/inventory", role: fleet.RoleOperator, serve: workDialog}, {pattern: "POST /orders/inventory", role: fleet.RoleOperator, serve: work},
}

// workForm is what the dialog begins with.
type workForm struct {
	Machines                  chosen
	Kind                      job.Kind
	Title, About, Order, Path string
	Images                    []api.ImageListing
	Disks                     []diskOption
	Plan                      []planRow // which disks it would be about, machine by machine
}

// Wipe and OfImage say what the form has.
func (f workForm) Wipe() bool    { return f.Kind == job.WipeDisk }
func (f workForm) OfImage() bool { return f.Kind.OfImage() }

// workKind is the kind of work that a path asks for.
func workKind(v *visit) job.Kind { return job.Kind(strings.TrimPrefix(v.URL.Path, "/orders/")) }

func workDialog(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	f := workForm{Machines: machines, Kind: workKind(v), Path: v.URL.Path, Disks: c.disksOf(machines)}
	switch f.Kind {
	case job.VerifyDisk:
		f.Title = v.countText(len(machines), text("Verify the disk of 1 machine"), text("Verify the disks of %d machines"))
		f.About, f.Order = v.t("Each disk is read and compared with its image. Nothing is written."), v.t("Verify")
	case job.RepairDisk:
		f.Title = v.countText(len(machines), text("Repair the disk of 1 machine"), text("Repair the disks of %d machines"))
		f.About, f.Order = v.t("Each disk is compared with its image; what differs is fetched and written, nothing else."), v.t("Repair")
	case job.WipeDisk:
		f.Title = v.countText(len(machines), text("Wipe the disk of 1 machine"), text("Wipe the disks of %d machines"))
		f.About, f.Order = v.t("Everything on these disks is destroyed. It cannot be taken back."), v.t("Wipe")
	default:
		f.Title = v.countText(len(machines), text("Ask 1 machine what it is"), text("Ask %d machines what they are"))
		f.About, f.Order = v.t("Each machine tells its hardware anew when it boots from the network."), v.t("Ask")
	}
	if f.OfImage() {
		if f.Images, err = c.imageOptions(v); err != nil {
			return nil, err
		}
	}
	if f.Kind != job.InventoryOf {
		if f.Plan, err = c.planWork(v, f.Kind, machines); err != nil && !f.OfImage() { // an image that is gone: another can be chosen
			return nil, err
		}
	}
	return show("orders", "work", f), nil
}

// planWork says of each machine which disk an order would be about, what is on it, and what is refused.
func (c *console) planWork(v *visit, kind job.Kind, machines chosen) (list []planRow, err error) {
	ids := make([]string, len(machines))
	for i, m := range machines {
		ids[i] = m.ID
	}
	p, err := c.Fleet.PlanWork(v.Context(), fleet.WorkOrder{Kind: kind, Machines: ids})
	if err != nil {
		return nil, err
	}
	for _, m := range p.Machines {
		row := planRow{Name: m.Name, Disk: v.t("not known yet"), Now: v.onDisk(m.Now)}
		if m.Disk != nil {
			row.Disk = diskText(m.Disk)
		}
		if kind == job.WipeDisk && m.Now.Kind == fleet.OnDiskUnknown {
			row.Now = v.t("all that is on it; the appliance does not know what")
		}
		if m.Refused != "" {
			row.Disk, row.Now, row.Refused = "–", "–", v.plain(m.Refused, refusalTexts[m.Code])
		}
		list = append(list, row)
	}
	return list, nil
}

func work(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	o := fleet.WorkOrder{Kind: workKind(v), Machines: machineIDs(v), Image: v.FormValue("image"), DiskSerial: v.FormValue("disk"), After: v.FormValue("after"), Windowless: v.FormValue("any") != ""}
	if o.Kind == job.WipeDisk {
		o.Method, o.Confirm = job.WipeMethod(v.FormValue("method")), strings.TrimSpace(v.FormValue("confirm"))
		if o.Confirm != string(job.WipeDisk) {
			return nil, &fleet.Refusal{Code: fleet.CodeUnconfirmed, Detail: v.t("Nothing was wiped. To confirm, type the word %s.", job.WipeDisk)}
		}
	}
	if o.Priority, err = v.number("priority"); err != nil {
		return nil, err
	}
	if o.NotBefore, err = v.start(); err != nil {
		return nil, err
	}
	made, err := c.Fleet.Work(v.Context(), o)
	if err != nil {
		return nil, err
	}
	r := result{Title: v.t("%s is ordered", v.kind(o.Kind)), Links: []link{{"/queue", v.t("See the queue")}}}
	r.Text = v.countText(len(made), text("1 machine begins when it boots from the network."), text("%d machines begin when they boot from the network."))
	if len(machines) == 1 {
		r.Links = append([]link{{"/machines/" + machines[0].ID, v.t("See the machine")}}, r.Links...)
	}
	return v.ordered(r), nil
}

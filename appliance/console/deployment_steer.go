package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// deploymentOf returns the deployment of a request's path.
func (c *console) deploymentOf(v *visit) (*fleet.Deployment, error) {
	id := v.PathValue("deployment")
	list := c.Fleet.Deployments()
	at := slices.IndexFunc(list, func(d fleet.Deployment) bool { return d.ID == id })
	if at < 0 {
		return nil, &fleet.Refusal{Code: fleet.CodeDeploymentUnknown, Detail: v.t("There is no deployment %s, or it was too long ago.", id)}
	}
	return &list[at], nil
}

// confirmation is a dialog that asks before a deployment is steered.
type confirmation struct {
	Path, Title, Order string
	Sentences          []string
	Version            int64
}

func cancelDialog(c *console, v *visit) (*answer, error) {
	d, err := c.deploymentOf(v)
	if err != nil {
		return nil, err
	}
	open := 0
	for _, j := range c.jobsByDeployment()[d.ID] {
		if !j.State.Ended() {
			open++
		}
	}
	return show("deployment", "confirm", confirmation{Path: "/deployments/" + d.ID + "/cancel", Version: d.Version, Order: v.t("Cancel the deployment"),
		Title: v.t("Cancel the deployment of %s", d.ImageName), Sentences: []string{
			v.countText(open, text("1 job that has not ended is cancelled."), text("%d jobs that have not ended are cancelled.")),
			v.t("A machine at work stops with its next report. A disk that is half written starts nothing until it is deployed again."),
		}}), nil
}

func closeDialog(c *console, v *visit) (*answer, error) {
	d, err := c.deploymentOf(v)
	if err != nil {
		return nil, err
	}
	return show("deployment", "confirm", confirmation{Path: "/deployments/" + d.ID + "/close", Version: d.Version, Order: v.t("Close to new machines"),
		Title: v.t("Close the deployment of %s to new machines", d.ImageName), Sentences: []string{
			v.t("Machines that are seen from now on do not get this image."),
			v.t("This cannot be taken back: for new machines it is ordered again."),
		}}), nil
}

func rollbackDialog(c *console, v *visit) (*answer, error) {
	d, err := c.deploymentOf(v)
	if err != nil {
		return nil, err
	}
	list, left, err := c.Fleet.PlanRollback(v.Context(), d.ID)
	if err != nil {
		return nil, err
	}
	f := confirmation{Path: "/deployments/" + d.ID + "/rollback", Version: d.Version, Title: v.t("Take back the deployment of %s", d.ImageName), Order: v.t("Take it back")}
	for _, b := range list {
		if b.Machines == 1 {
			f.Sentences = append(f.Sentences, v.t("1 machine gets %s again.", b.ImageName))
		} else {
			f.Sentences = append(f.Sentences, v.t("%d machines get %s again.", b.Machines, b.ImageName))
		}
	}
	if left > 0 {
		f.Sentences = append(f.Sentences, v.countText(left, text("1 machine stays as it is: what it held before is not known, or it got another image since."),
			text("%d machines stay as they are: what they held before is not known, or they got another image since.")))
	}
	f.Sentences = append(f.Sentences, v.t("Their disks are written; only what differs is fetched."))
	return show("deployment", "confirm", f), nil
}

// steerDeployment does what a button asks for, by the version of the deployment that the person saw.
func steerDeployment(c *console, v *visit) (*answer, error) {
	id := v.PathValue("deployment")
	ctx := v.Context()
	if version, err := strconv.ParseInt(v.FormValue("version"), 10, 64); err == nil {
		ctx = fleet.Expecting(ctx, version)
	}
	switch verb := v.PathValue("verb"); verb {
	case "pause", "resume", "cancel":
		n, err := c.Fleet.OperateDeployment(ctx, id, fleet.Verb(verb))
		if err != nil {
			return nil, err
		}
		switch verb {
		case "pause":
			return again(v.countText(n, text("1 job was paused"), text("%d jobs were paused"))), nil
		case "resume":
			return again(v.countText(n, text("1 job goes on"), text("%d jobs go on"))), nil
		}
		return again(v.countText(n, text("1 job was cancelled"), text("%d jobs were cancelled"))), nil
	case "close":
		if err := c.Fleet.CloseDeployment(ctx, id); err != nil {
			return nil, err
		}
		return again(v.t("Machines that are seen from now on do not get this image.")), nil
	case "retry":
		n, err := c.Fleet.RetryFailed(ctx, id)
		if err != nil {
			return nil, err
		}
		return again(v.countText(n, text("1 machine tries again"), text("%d machines try again"))), nil
	case "rollback":
		made, _, err := c.Fleet.Rollback(ctx, id)
		if err != nil {
			return nil, err
		}
		path := "/deployments"
		if len(made) == 1 {
			path += "/" + made[0].ID
		}
		return goTo(path, v.t("The machines get back what they held before.")), nil
	}
	return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: v.t("There is no page %s.", v.URL.Path)}
}

// receipt is the proof of what is on a machine's disk, as the dialog shows it.
type receipt struct {
	*job.Receipt
	Name, Path                  string
	Signature, Countersignature string // hexadecimal, the first digits
}

func (c *console) receiptOf(v *visit) (*fleet.JobView, *fleet.Receipt, error) {
	j, err := c.Fleet.Job(v.PathValue("job"))
	if err != nil {
		return nil, nil, err
	}
	r, err := c.Fleet.ReceiptOf(v.Context(), j.ID)
	if err != nil {
		return nil, nil, err
	}
	if r == nil || j.Deployment != v.PathValue("deployment") {
		return nil, nil, &fleet.Refusal{Code: fleet.CodeJobUnknown, Detail: v.t("There is no receipt of this job.")}
	}
	return j, r, nil
}

func receiptDialog(c *console, v *visit) (*answer, error) {
	j, r, err := c.receiptOf(v)
	if err != nil {
		return nil, err
	}
	says, err := r.Decode()
	if err != nil {
		return nil, err
	}
	first := func(b []byte) string { return fmt.Sprintf("%x…", b[:min(len(b), 16)]) }
	return show("deployment", "receipt", receipt{says, j.MachineName, v.URL.Path + "/download", first(r.Signature), first(r.Countersignature)}), nil
}

// downloadReceipt sends the receipt with both signatures, as the machine and the site signed it.
func downloadReceipt(c *console, v *visit) (*answer, error) {
	j, r, err := c.receiptOf(v)
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(struct {
		Receipt          json.RawMessage `json:"receipt"`
		Signed           []byte          `json:"signed"` // the exact bytes of the receipt that both signatures are over
		Signature        []byte          `json:"signature"`
		Countersignature []byte          `json:"countersignature"`
	}{r.Receipt, r.Receipt, r.Signature, r.Countersignature}, "", "  ")
	if err != nil {
		return nil, err
	}
	name := strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || strings.ContainsRune(`"\/`, r) {
			return '-'
		}
		return r
	}, j.MachineName)
	v.w.Header().Set("Content-Type", "application/json")
	v.w.Header().Set("Content-Disposition", `attachment; filename="receipt-`+name+"-"+j.ID+`.json"`)
	v.w.WriteHeader(http.StatusOK)
	_, _ = v.w.Write(b) // who asked may be gone
	return nil, nil
}

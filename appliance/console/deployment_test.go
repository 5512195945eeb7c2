package console

import (
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/monitor"
)

// inTheMiddle is a world with a room in the middle of a deployment, which it returns.
func inTheMiddle(t testing.TB) (*world, []string, string) {
	w := newWorld(t)
	ids := w.room("A101", 2, 4)
	return w, ids, w.deployed(ids, monitor.Done, monitor.Normal, monitor.Slow, monitor.Failed, monitor.Waiting, monitor.Failed, monitor.Silent, monitor.Paused)
}

func TestDeploymentSaysHowItGetsOn(t *testing.T) {
	w, ids, id := inTheMiddle(t)
	status, body, _ := w.ask(fleet.RoleViewer, "/deployments/"+id, nil)
	for _, want := range []string{"Deployment of debian:2", "A101-03 is expected to be done last", "91 %", "84 %", "From other machines", "2 machines", "<code>write-error</code>",
		"took nothing more at byte 12400000000", "its network card has negotiated 100 Mbit/s", "S4GXNX000001", "by otto", "/api/v1/deployments/" + id + "/journal", "312 GB"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if status != 200 || strings.Contains(body, "<button class=\"danger\"") || strings.Contains(body, "Retry those") {
		t.Errorf("%d: a viewer sees buttons", status)
	}
	if t.Failed() {
		t.Log(body)
	}
	if _, body, _ = w.ask(fleet.RoleViewer, "/deployments", nil); !strings.Contains(body, "debian:2") || !strings.Contains(body, "2 failed") || !strings.Contains(body, "otto") {
		t.Errorf("the list: %s", body)
	}
	if status, body, _ = w.ask(fleet.RoleViewer, "/deployments/none", nil); status != 404 || !strings.Contains(body, "no deployment none") {
		t.Errorf("no such deployment: %d %s", status, body)
	}
	done := jobOf(w, ids[0]).ID
	if _, body, _ = w.ask(fleet.RoleViewer, "/deployments/"+id+"/receipts/"+done, nil); !strings.Contains(body, w.shelf.list[1].Manifest.Partitions[0].Root.String()) || !strings.Contains(body, "512 GB") {
		t.Errorf("the receipt: %s", body)
	}
	for _, path := range []string{"/deployments/" + id + "/receipts/" + jobOf(w, ids[1]).ID, "/deployments/other/receipts/" + done} {
		if status, body, _ = w.ask(fleet.RoleViewer, path, nil); status != 404 || !strings.Contains(body, "no receipt") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestReceiptIsDownloadedWithItsSignatures(t *testing.T) {
	w, ids, id := inTheMiddle(t)
	done := jobOf(w, ids[0]).ID
	status, body, header := w.ask(fleet.RoleViewer, "/deployments/"+id+"/receipts/"+done+"/download", nil)
	var got struct {
		Receipt                             job.Receipt
		Signed, Signature, Countersignature []byte
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || got.Receipt.Job != done || len(got.Signature) == 0 || len(got.Countersignature) != 64 {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	stored, err := w.fleet.ReceiptOf(w.ctx, done)
	if err != nil || string(got.Signed) != string(stored.Receipt) || !strings.Contains(header.Get("Content-Disposition"), "receipt-A101-01-"+done) {
		t.Errorf("%v, %v", err, header)
	}
}

func TestSteeringOfADeploymentIsOfWhatAPersonSaw(t *testing.T) {
	w, _, id := inTheMiddle(t)
	version := func() string {
		for _, d := range w.fleet.Deployments() {
			if d.ID == id {
				b, _ := json.Marshal(d.Version)
				return string(b)
			}
		}
		return ""
	}
	first := version()
	for _, c := range []struct {
		role          fleet.Role
		verb, version string
		status        int
		says          string
	}{
		{fleet.RoleViewer, "pause", first, 403, "operator"},
		{fleet.RoleOperator, "pause", first, 200, ""},
		{fleet.RoleOperator, "cancel", first, 412, "changed"},
		{fleet.RoleOperator, "resume", "", 200, ""},
		{fleet.RoleOperator, "retry", "", 200, ""},
		{fleet.RoleOperator, "burn", "", 400, "no page"},
		{fleet.RoleOperator, "rollback", "", 400, "no machine of deployment"},
		{fleet.RoleOperator, "close", "", 200, ""},
		{fleet.RoleOperator, "cancel", "", 200, ""},
	} {
		status, body, _ := w.ask(c.role, "/deployments/"+id+"/"+c.verb, url.Values{"version": {c.version}})
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s by %s: %d %s, want %d %q", c.verb, c.role, status, body, c.status, c.says)
		}
	}
	for _, j := range w.fleet.Jobs() {
		if !j.State.Ended() {
			t.Errorf("after the cancel: %+v", j)
		}
	}
}

func TestDeploymentIsSteeredInABrowser(t *testing.T) {
	w, ids, id := inTheMiddle(t)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/deployments")
	b.until(`document.documentElement.dataset.heard === "1"`)
	b.axe()
	b.tabTo(`tbody th a`)
	b.press(kb.Enter)
	b.says("h1", "Deployment of debian:2")
	b.until(`document.documentElement.dataset.heard === "1" && document.querySelector("#chart canvas")`)
	b.until(`document.querySelectorAll("#chart .u-legend .u-series").length === 5`)
	b.says("#errors .error", "2 machines")
	b.axe()

	b.tabTo("#do-pause")
	b.press(kb.Enter)
	b.says(".message.done", "jobs were paused")
	b.says("#head", "The deployment is paused")
	b.tabTo("#do-resume")
	b.press(kb.Enter)
	b.says(".message.done", "go on")

	b.click("#retry-errors")
	b.says(".message.done", "2 machines try again")
	if j := jobOf(w, ids[3]); j.State != job.Waiting {
		t.Errorf("the machine that failed has %+v", j)
	}
	b.until(`document.documentElement.dataset.heard === "1" && !document.querySelector("#errors .error")`)

	b.click("#receipts tbody button")
	b.says("#dialog h2", "Receipt of A101-01")
	b.axe()
	b.picture("dialog-receipt-" + b.how.String())
	b.press(kb.Escape)
	b.until(`!document.getElementById("dialog").open && document.activeElement.id.startsWith("r-")`)

	// What changes comes by itself.
	w.change(func(p *monitor.Picture) {
		c := *p.Deployments[id]
		c.Efficiency = 0.42
		p.Deployments[id] = &c
	})
	b.says("#figures", "42 %")

	b.tabTo("#do-cancel")
	b.press(kb.Enter)
	b.says("#dialog h2", "Cancel the deployment of debian:2")
	b.tabTo("#dialog button.danger")
	b.press(kb.Enter)
	b.says(".message.done", "jobs were cancelled")
	for _, j := range w.fleet.Jobs() {
		if !j.State.Ended() {
			t.Errorf("after the cancel: %+v", j)
		}
	}
}

// TestRollbackSaysWhatItWouldDo: machines that held debian:1 before get it back.
func TestRollbackSaysWhatItWouldDo(t *testing.T) {
	w := newWorld(t)
	ids := w.room("A101", 1, 2)
	first, err := w.fleet.Deploy(w.ctx, fleet.Order{Image: "debian:1", Machines: ids[:1]})
	if err != nil {
		t.Fatal(err)
	}
	w.finish(ids[0], w.claim(ids[0]))
	second := w.deployed(ids, monitor.Done)
	_, body, _ := w.ask(fleet.RoleOperator, "/deployments/"+second+"/rollback", nil)
	if !strings.Contains(body, "1 machine gets debian:1 again.") || !strings.Contains(body, "1 machine stays as it is") {
		t.Errorf("the dialog: %s", body)
	}
	if n := len(w.fleet.Deployments()); n != 2 {
		t.Errorf("%d deployments", n)
	}
	status, _, header := w.ask(fleet.RoleOperator, "/deployments/"+second+"/rollback", url.Values{})
	list := w.fleet.Deployments()
	if status != 200 || len(list) != 3 || list[2].Instead != second || list[2].Image != first.Image || header.Get("HX-Redirect") != "/deployments/"+list[2].ID {
		t.Errorf("%d, %+v, %v", status, list, header)
	}
}

// TestPicturesOfOrders looks at the pages and dialogs of orders in all widths, themes and languages, where pictures are asked for.
func TestPicturesOfOrders(t *testing.T) {
	if os.Getenv("SEEDBED_PICTURES") == "" && os.Getenv("SEEDBED_FULL") == "" {
		return
	}
	w, ids, id := inTheMiddle(t)
	for _, width := range []int{390, 1280, 1920} {
		for i, theme := range []string{"light", "dark"} {
			h := how{Role: fleet.RoleOperator, Width: width, Theme: theme, Language: languages[i].Code}
			for name, path := range map[string]string{"deployments": "/deployments", "deployment": "/deployments/" + id, "queue": "/queue"} {
				b := w.open(t, h, path)
				b.until(`document.documentElement.dataset.heard === "1"`)
				b.fits()
				b.axe()
				b.picture(name + "-" + h.String())
			}
			b := w.open(t, h, "/rooms")
			b.dialog("/orders/deploy?machines=" + strings.Join(ids, ","))
			b.click("#dialog button.main")
			b.until(`document.querySelector("#plan h3")`)
			b.axe()
			b.picture("dialog-deploy-" + h.String())
		}
	}
}

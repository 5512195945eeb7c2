package console

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// ask sends a request as htmx does, by somebody with a role, and returns the answer. A form is sent by POST with the CSRF token.
func (w *world) ask(role fleet.Role, path string, form url.Values) (status int, body string, header http.Header) {
	w.t.Helper()
	method, content := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, content = http.MethodPost, strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, w.url+path, content)
	r.Header.Set("HX-Request", "true")
	stay := w.as(role)
	r.AddCookie(&http.Cookie{Name: api.CookieName, Value: stay.Cookie})
	r.RemoteAddr = "127.0.0.1:40000"
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set(api.CSRFHeader, stay.CSRF)
	}
	a := httptest.NewRecorder()
	w.console.ServeHTTP(a, r)
	return a.Code, a.Body.String(), a.Header()
}

func TestOrdersAreRefusedWithASentence(t *testing.T) {
	w := newWorld(t)
	one, other, strange := w.machine("one", true), w.machine("other", true), w.machine("strange", false)
	for name, c := range map[string]struct {
		role   fleet.Role
		path   string
		form   url.Values
		status int
		says   string
	}{
		"a viewer who opens a dialog":   {fleet.RoleViewer, "/orders/deploy?machines=" + one, nil, 403, "operator"},
		"a viewer who deploys":          {fleet.RoleViewer, "/orders/deploy", url.Values{"machines": {one}, "image": {"debian:1"}}, 403, "operator"},
		"a viewer who wipes":            {fleet.RoleViewer, "/orders/wipe", url.Values{"machines": {one}, "confirm": {"wipe"}}, 403, "operator"},
		"no machine":                    {fleet.RoleOperator, "/orders/deploy", nil, 400, "No machine is chosen"},
		"no machine in an order":        {fleet.RoleOperator, "/orders/deploy", url.Values{"image": {"debian:1"}}, 400, "No machine is chosen"},
		"no image":                      {fleet.RoleOperator, "/orders/deploy/plan", url.Values{"machines": {one}}, 400, "Choose an image"},
		"an image that is not there":    {fleet.RoleOperator, "/orders/deploy/plan", url.Values{"machines": {one}, "image": {"beos:5"}}, 404, "beos:5"},
		"a partition that is none":      {fleet.RoleOperator, "/orders/deploy/plan", url.Values{"machines": {one}, "image": {"debian:1"}, "keep": {"1, two"}}, 400, "number of a partition"},
		"a time that is none":           {fleet.RoleOperator, "/orders/deploy/plan", url.Values{"machines": {one}, "image": {"debian:1"}, "at": {"soon"}}, 400, "no date"},
		"a wipe without its word":       {fleet.RoleOperator, "/orders/wipe", url.Values{"machines": {one}, "confirm": {"yes"}}, 400, "type the word wipe"},
		"a verify of a strange machine": {fleet.RoleOperator, "/orders/verify", url.Values{"machines": {strange}, "image": {"debian:1"}}, 400, "not admitted"},
		"a capture of two":              {fleet.RoleOperator, "/orders/capture?machines=" + one + "," + other, nil, 400, "one machine"},
		"a capture of a known version":  {fleet.RoleOperator, "/orders/capture", url.Values{"machines": {one}, "name": {"debian"}, "version": {"1"}}, 409, "debian:1"},
		"nothing to cancel":             {fleet.RoleOperator, "/orders/cancel", url.Values{"machines": {one}, "jobs": {""}}, 400, "no job"},
		"a job that is not there":       {fleet.RoleOperator, "/orders/cancel", url.Values{"machines": {one}, "jobs": {"none"}}, 404, "none"},
	} {
		status, body, _ := w.ask(c.role, c.path, c.form)
		if status != c.status || !strings.Contains(body, c.says) || !strings.Contains(body, `class="message refused"`) {
			t.Errorf("%s: %d %s, want %d %q", name, status, body, c.status, c.says)
		}
	}
	if jobs := w.fleet.Jobs(); len(jobs) != 0 {
		t.Errorf("refused orders made jobs: %+v", jobs)
	}
	r := httptest.NewRequest(http.MethodPost, w.url+"/orders/wipe", strings.NewReader(url.Values{"machines": {one}, "confirm": {"wipe"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: api.CookieName, Value: w.as(fleet.RoleOperator).Cookie})
	r.RemoteAddr = "127.0.0.1:40000"
	a := httptest.NewRecorder()
	if w.console.ServeHTTP(a, r); a.Code != 403 || len(w.fleet.Jobs()) != 0 {
		t.Errorf("a wipe without the CSRF token: %d", a.Code)
	}
}

func TestPlanLeavesOutWhatIsRefused(t *testing.T) {
	w := newWorld(t)
	one, strange := w.machine("one", true), w.machine("strange", false)
	status, body, header := w.ask(fleet.RoleOperator, "/orders/deploy/plan", url.Values{"machines": {one + "," + strange}, "image": {"debian:2"}, "verify": {"sample"}, "wake": {"1"}})
	for _, want := range []string{"1 disk will be written with debian:2", "1 machine is left out", "<strong>" + nameOf(w, strange) + "</strong>", "Samsung PM9A1, S4GXNX000001, 512 GB, nvme",
		"not known: the machine looks", "Write 1 disk", `name="machines" value="` + one + `"`, `name="verify" value="sample"`, `name="wake" value="1"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the plan does not say %q", want)
		}
	}
	if status != 200 || header.Get("HX-Retarget") != "#plan" || len(w.fleet.Jobs()) != 0 {
		t.Errorf("%d, %v, %d jobs", status, header, len(w.fleet.Jobs()))
	}
	if t.Failed() {
		t.Log(body)
	}
}

func TestTheDiskIsNamedOfAMachineThatHasSeveral(t *testing.T) {
	w := newWorld(t)
	second := job.Disk{Name: "sda", Model: "WDC", Serial: "WD-7", Length: 4 << 40, SectorLength: 512, Bus: "sata"}
	one, two := w.machine("one", true), w.machine("two", true, second)
	for path, want := range map[string][]string{
		"/orders/deploy?machines=" + two:             {`<option value="WD-7">`},
		"/orders/wipe?machines=" + two:               {`<option value="WD-7">`, `<th scope="row">two</th><td colspan="2"`},
		"/orders/wipe?machines=" + one + "," + two:   {`<th scope="row">one</th>`, "nvme0n1, Samsung PM9A1", `<th scope="row">two</th><td colspan="2"`},
		"/orders/deploy?machines=" + one + "," + two: {"Put an image on 2 machines"},
	} {
		_, body, _ := w.ask(fleet.RoleOperator, path, nil)
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not say %q: %s", path, text, body)
			}
		}
		if strings.Contains(path, ",") && strings.Contains(body, `name="disk"`) {
			t.Errorf("%s names a disk of several machines", path)
		}
	}
	form := url.Values{"machines": {two}, "image": {"debian:2"}}
	if _, body, _ := w.ask(fleet.RoleOperator, "/orders/deploy/plan", form); !strings.Contains(body, "1 machine is left out") {
		t.Errorf("without the disk's serial number: %s", body)
	}
	form.Set("disk", "WD-7")
	if _, body, _ := w.ask(fleet.RoleOperator, "/orders/deploy/plan", form); !strings.Contains(body, "WDC, WD-7") || !strings.Contains(body, `name="disk" value="WD-7"`) {
		t.Errorf("with the disk's serial number: %s", body)
	}
	if status, body, _ := w.ask(fleet.RoleOperator, "/orders/deploy", form); status != 200 || jobOf(w, two).Options.Disk != "WD-7" {
		t.Errorf("%d %s", status, body)
	}
	second.Serial = "WD-8"
	three := w.machine("three", true, second)
	wipe := url.Values{"machines": {three}, "confirm": {"wipe"}, "disk": {"WD-8"}}
	if status, body, _ := w.ask(fleet.RoleOperator, "/orders/wipe", wipe); status != 200 || jobOf(w, three).Work.DiskSerial != "WD-8" {
		t.Errorf("%d %s", status, body)
	}
}

// TestWorkSaysWhichDisksBefore it is ordered: a dry run changes nothing.
func TestWorkSaysWhichDisksBefore(t *testing.T) {
	w := newWorld(t)
	one, strange := w.machine("one", true), w.machine("strange", false)
	for path, want := range map[string][]string{
		"/orders/wipe?machines=" + one + "," + strange: {"What will be lost", "Samsung PM9A1", "all that is on it", "is not admitted"},
		"/orders/verify?machines=" + one:               {"Now on it", "holds no image that is known"},
		"/orders/repair?machines=" + one:               {"Now on it", "holds no image that is known"},
	} {
		status, body, _ := w.ask(fleet.RoleOperator, path, nil)
		for _, text := range want {
			if status != 200 || !strings.Contains(body, text) {
				t.Errorf("%s: %d, does not say %q: %s", path, status, text, body)
			}
		}
	}
	p, err := w.fleet.PlanWork(w.ctx, fleet.WorkOrder{Kind: job.VerifyDisk, Machines: []string{one}, Image: "debian:1"})
	if err != nil || p.Refused != 0 || p.Machines[0].Disk == nil || p.Machines[0].Disk.Model != "Samsung PM9A1" || p.Machines[0].Image != "debian:1" {
		t.Errorf("%+v, %v", p, err)
	}
	if jobs := w.fleet.Jobs(); len(jobs) != 0 {
		t.Errorf("dry runs made jobs: %+v", jobs)
	}
}

func nameOf(w *world, id string) string {
	m, err := w.fleet.Machine(id)
	if err != nil {
		w.t.Fatal(err)
	}
	return m.Name
}

func TestOrdersOfAllKinds(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 6 {
		ids = append(ids, w.machine(fmt.Sprint("pc-", i), true))
	}
	for i, c := range []struct {
		path string
		form url.Values
		kind job.Kind
		says string
	}{
		{"/orders/deploy", url.Values{"image": {"debian:2"}, "priority": {"7"}, "free": {"discard"}}, job.Deploy, "debian:2 is being deployed"},
		{"/orders/verify", url.Values{"image": {"debian:1"}}, job.VerifyDisk, "Verification is ordered"},
		{"/orders/repair", url.Values{"image": {"debian:1"}}, job.RepairDisk, "Repair is ordered"},
		{"/orders/wipe", url.Values{"confirm": {"wipe"}, "method": {"discard"}}, job.WipeDisk, "Wipe is ordered"},
		{"/orders/inventory", url.Values{"after": {"stay"}}, job.InventoryOf, "Inventory is ordered"},
		{"/orders/capture", url.Values{"name": {"golden"}, "version": {"3"}, "disk": {"S4GXNX000006"}}, job.Capture, "golden:3 is being captured"},
	} {
		if status, body, _ := w.ask(fleet.RoleOperator, c.path+"?machines="+ids[i], nil); status != 200 || !strings.Contains(body, "pc-"+fmt.Sprint(i)) || !strings.Contains(body, "<form") {
			t.Errorf("dialog %s: %d %s", c.path, status, body)
		}
		c.form.Set("machines", ids[i])
		status, body, header := w.ask(fleet.RoleOperator, c.path, c.form)
		if status != 200 || !strings.Contains(body, c.says) || header.Get("HX-Retarget") != "#dialog" {
			t.Errorf("%s: %d %s", c.path, status, body)
		}
		if j := jobOf(w, ids[i]); j == nil || j.Kind != c.kind {
			t.Errorf("%s made %+v", c.path, j)
		}
	}
	if j := jobOf(w, ids[0]); j.Priority != 7 || j.Options.Free != job.FreeDiscard {
		t.Errorf("options: %+v", j)
	}
	for _, c := range []struct {
		verb  string
		state job.State
		says  string
	}{{"pause", job.Paused, "1 job was paused"}, {"resume", job.Waiting, "1 job goes on"}, {"cancel", job.Cancelled, "1 job was cancelled"}} {
		j := jobOf(w, ids[1])
		if _, body, _ := w.ask(fleet.RoleOperator, "/orders/"+c.verb+"?machines="+ids[1], nil); !strings.Contains(body, `value="`+j.ID+`"`) {
			t.Errorf("%s does not name the job: %s", c.verb, body)
		}
		if status, body, _ := w.ask(fleet.RoleOperator, "/orders/"+c.verb, url.Values{"machines": {ids[1]}, "jobs": {j.ID}}); status != 200 || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s", c.verb, status, body)
		}
		if j = jobOf(w, ids[1]); j.State != c.state {
			t.Errorf("after %s the job is %s", c.verb, j.State)
		}
	}
}

// jobOf is the last job of a machine, or nil.
func jobOf(w *world, machine string) *fleet.JobView {
	list := w.fleet.Jobs()
	for _, j := range slices.Backward(list) {
		if j.Machine == machine {
			return &j
		}
	}
	return nil
}

// dialog opens a dialog of orders on the page that is shown.
func (b *tab) dialog(path string) {
	b.t.Helper()
	eval[bool](b, `htmx.ajax("GET", "`+path+`", {target: "#dialog", swap: "innerHTML"}).then(() => true)`)
	b.until(`document.getElementById("dialog").open`)
}

// tabTo presses Tab until the element of a selector has the focus.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	for range 40 {
		b.press(kb.Tab)
		if eval[bool](b, "document.activeElement.matches(`"+selector+"`)") {
			return
		}
	}
	b.t.Fatalf("Tab does not come to %s", selector)
}

// TestDeployByKeyboard: from the dialog to the deployment with keys alone.
func TestDeployByKeyboard(t *testing.T) {
	w := newWorld(t)
	w.room("A101", 1, 3)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/rooms")
	b.until(`document.documentElement.dataset.heard === "1"`)
	b.tabTo(".seat")
	b.press("a", chromedp.KeyModifiers(kb.ModifierCtrl))
	b.until(`document.getElementById("chosen").innerText.includes("3 machines")`)
	b.tabTo(`button[hx-get="/orders/deploy"]`)
	b.press(kb.Enter)
	b.until(`document.activeElement.name === "image"`)
	b.press("windows")
	b.until(`document.activeElement.value === "windows:1"`)
	b.tabTo("#dialog button.main")
	b.press(kb.Enter)
	b.says("#plan h3", "3 disks will be written with windows:1")
	b.until(`document.activeElement === document.querySelector("#plan h3")`)
	b.says("#plan td", "Samsung PM9A1")
	b.axe()
	b.picture("dialog-deploy-" + b.how.String())
	b.tabTo("#plan button.main")
	b.says("#plan button.main", "Write 3 disks")
	if len(w.fleet.Jobs()) != 0 {
		t.Fatal("the dry run made jobs")
	}
	b.press(kb.Enter)
	b.says("#dialog h2", "windows:1 is being deployed")
	if d := w.fleet.Deployments(); len(d) != 1 || len(w.fleet.Jobs()) != 3 || d[0].By != "otto" {
		t.Fatalf("%+v, %d jobs", d, len(w.fleet.Jobs()))
	}
	b.press(kb.Escape)
	b.until(`!document.getElementById("dialog").open && document.activeElement.matches('button[hx-get="/orders/deploy"]')`)
}

// TestAnImageIsDeployedFromItsPage: its machines are chosen, and then comes the dialog of the rooms with the version chosen.
func TestAnImageIsDeployedFromItsPage(t *testing.T) {
	w := newWorld(t)
	w.room("A101", 1, 3)
	two := w.room("A102", 1, 2)
	alone := w.machine("alone", true)
	w.machine("strange", false)
	for _, h := range []how{{Role: fleet.RoleOperator}, {Role: fleet.RoleOperator, Width: 390, Language: "zh", Theme: "dark"}} {
		b := w.open(t, h, "/images/debian:1")
		b.click(`button[hx-get^="/orders/deploy/machines"]`)
		b.until(`document.querySelectorAll("#dialog [name=machines]").length === 6`)
		b.axe()
		b.fits()
		if h.Language == "zh" {
			b.click("#dialog li:nth-child(2) summary")
			b.picture("dialog-machines-" + b.how.String())
			continue
		}
		b.expect("status of 400")
		b.click("#dialog button.main")
		b.says("#dialog .answer", "No machine is chosen")
		b.click("#dialog li:nth-child(1) [data-whole]")
		b.click("#dialog li:nth-child(2) summary")
		b.click(`#dialog [value="` + two[1] + `"]`)
		b.until(`document.querySelector("#dialog li:nth-child(2) [data-whole]").indeterminate && document.querySelectorAll("#dialog [name=machines]:checked").length === 4`)
		b.click("#dialog li:nth-child(3) [data-whole]")
		b.click("#dialog li:nth-child(1) [data-whole]") // not these after all
		b.picture("dialog-machines-" + b.how.String())
		b.click("#dialog button.main")
		b.says("#dialog h2", "Put an image on 2 machines")
		b.until(`document.activeElement.name === "image" && document.activeElement.value === "debian:1"`)
		b.click("#dialog button.main")
		b.says("#plan h3", "2 disks will be written with debian:1")
		if len(w.fleet.Jobs()) != 0 {
			t.Fatal("the dry run made jobs")
		}
		b.click("#plan button.main")
		b.says("#dialog h2", "debian:1 is being deployed")
		if jobOf(w, alone) == nil || jobOf(w, two[1]) == nil || len(w.fleet.Jobs()) != 2 {
			t.Errorf("jobs %+v", w.fleet.Jobs())
		}
		if name := eval[string](b, `document.getElementById("dialog").getAttribute("aria-label")`); name != "debian:1 is being deployed" {
			t.Errorf("the dialog is named %q", name)
		}
		b.click("#dialog button[data-close]")
		b.until(`document.activeElement.matches('button[hx-get^="/orders/deploy/machines"]')`)
	}
}

// TestMoreOrdersAreInTheRooms: what is seldom ordered opens from behind "More".
func TestMoreOrdersAreInTheRooms(t *testing.T) {
	w := newWorld(t)
	ids := w.room("A101", 1, 2)
	for _, width := range []int{390, 1280} {
		b := w.open(t, how{Role: fleet.RoleOperator, Width: width, Theme: "dark"}, "/rooms")
		b.until(`document.documentElement.dataset.heard === "1"`)
		b.click("#m-" + ids[0])
		b.click(".more summary")
		b.fits()
		b.axe()
		b.picture("rooms-more-" + b.how.String())
		b.click(`button[hx-get="/orders/wipe"]`)
		b.says("#dialog h2", "Wipe the disk of 1 machine")
		b.click("#dialog [data-close]")
		b.until(`!document.getElementById("dialog").open && document.activeElement.matches('button[hx-get="/orders/wipe"]')`)
	}
}

// TestDialogsOfOrders orders with the mouse what TestDeployByKeyboard does not.
func TestDialogsOfOrders(t *testing.T) {
	w := newWorld(t)
	ids := w.room("A101", 1, 3)
	b := w.open(t, how{Role: fleet.RoleOperator, Width: 390}, "/rooms")
	state := func(i int) job.State { return jobOf(w, ids[i]).State }

	b.dialog("/orders/capture?machines=" + ids[0])
	eval[bool](b, `(document.querySelector("#dialog [name=name]").value = "debian", document.querySelector("#dialog [name=version]").value = "2", true)`)
	b.expect("409")
	b.click("#dialog button.main")
	b.says("#dialog .answer", "debian:2")
	if v := eval[string](b, `document.querySelector("#dialog [name=version]").value`); v != "2" || len(w.fleet.Jobs()) != 0 {
		t.Errorf("after the refusal the form has version %q", v)
	}
	b.picture("dialog-capture-" + b.how.String())
	eval[bool](b, `(document.querySelector("#dialog [name=version]").value = "3", true)`)
	b.click("#dialog button.main")
	b.says("#dialog h2", "debian:3 is being captured")
	if state(0) != job.Waiting {
		t.Error(state(0))
	}
	b.click("#dialog [data-close]")
	b.until(`!document.getElementById("dialog").open`)

	b.dialog("/orders/wipe?machines=" + ids[1])
	b.expect("400")
	b.axe()
	b.picture("dialog-wipe-" + b.how.String())
	b.click("#dialog button.main")
	b.says("#dialog .answer", "type the word wipe")
	if jobOf(w, ids[1]) != nil {
		t.Error("an unconfirmed wipe made a job")
	}
	b.click("#dialog [name=confirm]")
	b.press("wipe")
	b.click("#dialog button.main")
	b.says("#dialog h2", "Wipe is ordered")
	b.click("#dialog [data-close]")

	b.dialog("/orders/verify?machines=" + ids[2])
	eval[bool](b, `(document.querySelector("#dialog [name=image]").value = "debian:1", true)`)
	b.click("#dialog button.main")
	b.says("#dialog h2", "Verification is ordered")
	b.click("#dialog [data-close]")

	b.dialog("/orders/cancel?machines=" + strings.Join(ids, ","))
	b.says("#dialog button.main", "Cancel 3 jobs")
	b.axe()
	b.fits()
	b.picture("dialog-cancel-" + b.how.String())
	b.click("#dialog button.main")
	b.says("#dialog h2", "3 jobs were cancelled")
	for i := range ids {
		if state(i) != job.Cancelled {
			t.Errorf("job %d is %s", i, state(i))
		}
	}
}

package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// refusedLoader is the boot of a machine whose firmware refused its loader, begun so long ago.
func refusedLoader(ago time.Duration) api.Boots {
	began := time.Now().Add(-ago)
	at := func(seconds float64) time.Time {
		return began.Add(time.Duration(seconds * float64(time.Second)))
	}
	step := func(from, to float64, s bootdoctor.Step) bootdoctor.Step {
		s.At, s.Last, s.Count = at(from), at(to), max(1, s.Count)
		return s
	}
	boot := bootdoctor.Boot{MAC: "52:54:00:00:00:01", Began: began, Firmware: "UEFI x64", UEFI: true, Addr: "10.77.0.101", Steps: []bootdoctor.Step{
		step(0, 4, bootdoctor.Step{Kind: bootdoctor.DHCP, By: bootdoctor.ByFirmware, Loader: "shim", Count: 2}),
		step(4.2, 4.2, bootdoctor.Step{Kind: bootdoctor.Address, By: bootdoctor.ByFirmware, Note: "10.77.0.101"}),
		step(4.4, 4.4, bootdoctor.Step{Kind: bootdoctor.Proxy, By: bootdoctor.ByFirmware, Loader: "shim"}),
		step(4.6, 6.1, bootdoctor.Step{Kind: bootdoctor.TFTP, By: bootdoctor.ByFirmware, Loader: "shim", File: "525400000001/shimx64.efi", Bytes: 950e3, Length: 950e3}),
		step(9.7, 9.7, bootdoctor.Step{Kind: bootdoctor.DHCP, By: bootdoctor.ByFirmware, Loader: "shim"}),
	}}
	return func([]string) []bootdoctor.Boot { return []bootdoctor.Boot{boot} }
}

// distrusted is that boot gone on, to an agent that does not trust what answers it, after two others; another appliance saw a step of it.
func distrusted(ago time.Duration) api.Boots {
	began := refusedLoader(ago)(nil)[0]
	at := began.Latest().Add(10 * time.Second)
	began.Steps = append(began.Steps, bootdoctor.Step{At: at, Last: at, Count: 1, Kind: bootdoctor.Trouble, By: bootdoctor.ByAgent, Problem: job.TroubleCertificate, Note: "certificate has expired"})
	began.Steps[1].Appliance = "server-two"
	before, first := refusedLoader(ago + time.Hour)(nil)[0], refusedLoader(ago + 2*time.Hour)(nil)[0]
	return func([]string) []bootdoctor.Boot { return []bootdoctor.Boot{began, before, first} }
}

// arrives waits until a page that an action leads to says something.
func (b *tab) arrives(says string) {
	b.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if strings.Contains(b.seen(), says) { // an error while the page goes does not
			b.until(`document.querySelector("main")`)
			return
		}
	}
	b.t.Fatalf("no page says %q:\n%s", says, b.seen())
}

// TestAMachinesPageSaysWhereItsBootStopped: what was seen, the verdict with both causes, and what to do, as it changes and in both languages.
func TestAMachinesPageSaysWhereItsBootStopped(t *testing.T) {
	w := newWorld(t)
	id := w.machine("one", true)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/machines/"+id)
	b.says("#verdict", "nothing to do now")
	b.until(`document.documentElement.dataset.heard === "1"`)
	stopped := api.Boots(refusedLoader(-time.Second)) // it began after the agent's hello
	w.boots.Store(&stopped)
	b.says("#verdict", "Secure Boot refuses it (it is on, and the loader did not begin).")
	b.says("#verdict", "Microsoft 3rd party UEFI CA")
	b.says("#timeline", "firmware fetches 525400000001/shimx64.efi by TFTP (950 KB) took 1.5 s")
	b.says("#timeline", "2 times")
	b.axe()
	b.picture("machine-stopped")
	untrusted := api.Boots(distrusted(-time.Second))
	w.boots.Store(&untrusted)
	b.says("#verdict", "the clock of this appliance is wrong")
	b.says("#verdict", "another computer, or a proxy that opens TLS")
	b.says("#timeline", "it takes the address 10.77.0.101 of its DHCP server (seen by the appliance server-two)")
	b.says("#boot-0", "An earlier boot")
	if eval[string](b, `document.querySelector("#verdict code").innerText`) != "seedbed doctor" {
		t.Error("the command in what to do is not set as one")
	}
	b.picture("machine-causes")
	chinese := w.open(t, how{Role: fleet.RoleViewer, Language: "zh", Width: 390}, "/machines/"+id)
	chinese.says("#verdict", "本服务器的时钟不对")
	chinese.says("#timeline", "固件通过 TFTP 取得 525400000001/shimx64.efi")
	if eval[bool](chinese, `document.querySelector("#edit") !== null`) {
		t.Error("a viewer may change what people say of a machine")
	}
	chinese.fits()
	chinese.axe()
	chinese.picture("machine-stopped-zh")
}

// TestAMachinesPageShowsTheWordsOfItsScreen: those alone, as text, as they change.
func TestAMachinesPageShowsTheWordsOfItsScreen(t *testing.T) {
	w := newWorld(t)
	id := w.machine("one", true)
	page := func() string {
		t.Helper()
		status, body, _ := w.ask(fleet.RoleViewer, "/machines/"+id, nil)
		if status != http.StatusOK {
			t.Fatalf("the page answers %d", status)
		}
		return body
	}
	if strings.Contains(page(), "Its screen says") {
		t.Error("the page knows what the screen says, which no agent told")
	}
	if _, err := w.fleet.Deploy(w.ctx, fleet.Order{Image: "debian:1", Machines: []string{id}}); err != nil {
		t.Fatal(err)
	}
	j := w.claim(id)
	w.reports(id, j, job.Report{Phase: job.PhaseCheck, State: job.Paused, Code: "too-small", Reason: "put in a larger disk", Total: 40e9,
		Screen: &job.Screen{Level: "waiting", Word: "paused", Headline: "disk too small", Message: "Put in a <b>larger</b> disk.", Notice: "The appliance does not answer."}})
	const want = `<strong>paused · disk too small</strong> Put in a &lt;b&gt;larger&lt;/b&gt; disk. The appliance does not answer.</span>`
	if body := page(); !strings.Contains(body, want) {
		_, rest, _ := strings.Cut(body, "Its screen says")
		t.Errorf("the page says of the screen%.400s", rest)
	}
	w.reports(id, j, job.Report{Phase: job.PhaseContent, State: job.Running, Total: 40e9, Screen: &job.Screen{Level: "working", Word: "copying"}})
	if body := page(); !strings.Contains(body, "<strong>copying</strong></span>") || strings.Contains(body, "larger") {
		t.Error("the page does not show that the screen says something else")
	}
}

// TestAMachinesPageSaysWhatStoppedAnEarlierBoot: beside the verdict on the present one, as text, for the machine that left it.
func TestAMachinesPageSaysWhatStoppedAnEarlierBoot(t *testing.T) {
	w := newWorld(t)
	other := w.machine("other", true)
	w.left = &job.Left{Code: job.LeftNoLink, Text: "no link on <i>eth0</i>.", At: time.Now().Add(-time.Hour)}
	id := w.machine("one", true)
	_, body, _ := w.ask(fleet.RoleViewer, "/machines/"+id, nil)
	const want = ": In a boot before this one the network card of one had no link: no link on &lt;i&gt;eth0&lt;/i&gt;."
	if _, part, found := strings.Cut(body, `<div id="left">`); !found || !strings.Contains(part, want) || !strings.Contains(part, "look at its cable") || strings.HasPrefix(part, "<p>: ") {
		t.Errorf("the page says of the boot before: %.600s", part)
	}
	if _, body, _ := w.ask(fleet.RoleViewer, "/machines/"+other, nil); strings.Contains(body, `id="left"`) {
		t.Error("a machine that left nothing is said to have")
	}
}

// TestAMachineIsChangedOnItsPage: by keyboard, and not where somebody else was faster.
func TestAMachineIsChangedOnItsPage(t *testing.T) {
	w := newWorld(t)
	w.room("A101", 1, 2)
	id, other := w.machine("one", true), w.machine("two", true)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/machines/"+id)
	eval[bool](b, `(() => { const f = document.getElementById("edit"); f.elements.name.value = "door"; f.elements.notes.value = "by the door"; f.elements.room.value = "A101"; f.elements.boot.value = "local"; f.elements.name.focus(); return true; })()`)
	b.press("\r")
	b.arrives("door is changed.")
	m, err := w.fleet.Machine(id)
	if err != nil || m.Name != "door" || m.Notes != "by the door" || len(m.Groups) != 1 || m.Boot == nil || m.Boot.To != fleet.BootLocal {
		t.Fatalf("%+v, %v", m, err)
	}
	// The appliance's own writes do not stand in the way of the form that is open.
	if _, err := w.fleet.Deploy(w.ctx, fleet.Order{Image: "debian:1", Machines: []string{id}}); err != nil {
		t.Fatal(err)
	}
	w.finish(id, w.claim(id))
	if now, err := w.fleet.Machine(id); err != nil || now.Version == m.Version {
		t.Fatalf("the receipt changes nothing: %+v, %v", now, err)
	}
	eval[bool](b, `(window.before = true)`)
	b.click("#edit button.main:not([type=button])")
	b.until(`!window.before && document.querySelector("main > .message.done")`)
	notes := "somebody was faster"
	if _, err := w.fleet.EditMachine(w.ctx, id, 0, fleet.MachineOrder{Notes: &notes}); err != nil {
		t.Fatal(err)
	}
	b.expect("status of 412")
	b.expect("status of 409")
	b.click("#edit button.main:not([type=button])")
	b.says("#edit .answer", "changed by somebody else")

	b.load("/machines/" + other)
	b.click(`button[hx-get$="/merge"]`)
	b.until(`document.getElementById("dialog").open`)
	eval[bool](b, `(document.querySelector("#dialog select").value = "`+id+`", true)`)
	b.click("#dialog button.main")
	b.arrives("Both records are door now.")
	if _, err := w.fleet.Machine("two"); err == nil {
		t.Error("the record that was merged is still there")
	}
	b.click(`button[hx-get$="/remove"]`)
	b.until(`document.getElementById("dialog").open`)
	b.axe()
	b.click("#dialog button.main")
	b.arrives("door is removed.")
	if _, err := w.fleet.Machine(id); err == nil {
		t.Error("a machine that was removed is still there")
	}
}

// TestWhoMayNotChangesNoMachine asks the actions of the page without a browser.
func TestWhoMayNotChangesNoMachine(t *testing.T) {
	w := newWorld(t)
	id := w.machine("one", false)
	for _, path := range []string{"/edit", "/admit", "/merge", "/remove"} {
		code, body, _ := w.ask(fleet.RoleViewer, "/machines/"+id+path, url.Values{"version": {"1"}})
		if code != http.StatusForbidden || !strings.Contains(body, "operator") {
			t.Errorf("%s by a viewer: %d %.200s", path, code, body)
		}
		code, _, _ = w.ask(fleet.RoleOperator, "/machines/nobody"+path, url.Values{"version": {"1"}})
		if code != http.StatusNotFound {
			t.Errorf("%s of a machine that is not there: %d", path, code)
		}
	}
	if code, body, _ := w.ask(fleet.RoleOperator, "/machines/"+id+"/edit", url.Values{"name": {"x"}}); code != http.StatusBadRequest || !strings.Contains(body, "Load the page again") {
		t.Errorf("a form without its version: %d %.200s", code, body)
	}
}

package console

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/images/packed"
)

func TestImagesAreRefusedWithASentence(t *testing.T) {
	w := newWorld(t)
	w.shelf.used = "job 17 of deployment 4; wait for it"
	for name, c := range map[string]struct {
		role   fleet.Role
		path   string
		form   url.Values
		status int
		says   string
	}{
		"a viewer who verifies":           {fleet.RoleViewer, "/images/verify", url.Values{"image": {"debian:1"}}, 403, "operator"},
		"a viewer who exports":            {fleet.RoleViewer, "/images/debian:1/disk", nil, 403, "operator"},
		"a viewer who uploads":            {fleet.RoleViewer, "/images/upload", nil, 403, "operator"},
		"an operator who removes":         {fleet.RoleOperator, "/images/debian:1/remove", url.Values{"name": {"debian:1"}}, 403, "admin"},
		"an operator who frees room":      {fleet.RoleOperator, "/images/prune", url.Values{}, 403, "admin"},
		"an image that is used":           {fleet.RoleAdmin, "/images/debian:1/remove", url.Values{"name": {"debian:1"}}, 409, "used by job 17"},
		"a removal that is not confirmed": {fleet.RoleAdmin, "/images/debian:1/remove", url.Values{"name": {"debian"}}, 400, "type debian:1"},
		"an image that is not there":      {fleet.RoleOperator, "/images/verify", url.Values{"image": {"beos:5"}}, 404, "beos:5"},
		"an export of none":               {fleet.RoleOperator, "/images/beos:5/disk", nil, 404, "beos:5"},
		"a comparison with nothing":       {fleet.RoleViewer, "/images/debian:2/diff", nil, 400, "compared with"},
		"work that has ended":             {fleet.RoleOperator, "/images/works/77/cancel", url.Values{}, 400, "ended already"},
	} {
		status, body, _ := w.ask(c.role, c.path, c.form)
		if status != c.status || !strings.Contains(body, c.says) || !strings.Contains(body, "message refused") {
			t.Errorf("%s: %d %s, want %d %q", name, status, body, c.status, c.says)
		}
	}
	if len(w.shelf.removed) > 0 || len(w.works.of(imageWorks...)) > 0 {
		t.Errorf("refused, yet removed %v, and %+v is done", w.shelf.removed, w.works.of(imageWorks...))
	}
}

func TestTheDownloadOfAnImageIsTheDisk(t *testing.T) {
	w := newWorld(t)
	status, body, header := w.ask(fleet.RoleOperator, "/images/debian:1/disk", nil)
	want := strings.Repeat("\x00", 4096) + "the disk"
	want += strings.Repeat("\x00", exportLength-len(want))
	if status != 200 || body != want || header.Get("Content-Length") != "1048576" || header.Get("Content-Disposition") != `attachment; filename="debian-1.raw"` {
		t.Errorf("status %d, %d bytes, headers %v", status, len(body), header)
	}
}

func TestTheCompressedDownloadIsTheDisk(t *testing.T) {
	w := newWorld(t)
	status, body, header := w.ask(fleet.RoleOperator, "/images/debian:1/disk?format=zstd", nil)
	want := strings.Repeat("\x00", 4096) + "the disk"
	want += strings.Repeat("\x00", exportLength-len(want))
	var disk strings.Builder
	err := packed.Unpack(&disk, strings.NewReader(body), packed.Recognise([]byte(body)))
	if status != 200 || err != nil || disk.String() != want || header.Get("Content-Type") != "application/zstd" || header.Get("Content-Disposition") != `attachment; filename="debian-1.img.zst"` || len(body) > 400 {
		t.Errorf("status %d, %v, %d bytes of %d, headers %v", status, err, disk.Len(), len(body), header)
	}
	if status, body, _ := w.ask(fleet.RoleOperator, "/images/debian:1/disk?format=zip", nil); status != 400 || !strings.Contains(body, "zstd") {
		t.Errorf("another format: %d %s", status, body)
	}
	b := w.open(t, how{Role: fleet.RoleOperator}, "/images/debian:1")
	b.until(`document.querySelector('a[download="debian-1.img.zst"]').getAttribute("href").endsWith("format=zstd")`)
	b.picture("image-exports-" + b.how.String())
}

// put uploads a disk as the page's script does.
func (w *world) put(query, content, csrf string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPut, w.url+uploadPath+"?"+query, strings.NewReader(content))
	r.AddCookie(&http.Cookie{Name: api.CookieName, Value: w.as(fleet.RoleOperator).Cookie})
	r.Header.Set("HX-Request", "true")
	r.Header.Set(api.CSRFHeader, csrf)
	r.RemoteAddr = "127.0.0.1:40000"
	a := httptest.NewRecorder()
	w.console.ServeHTTP(a, r)
	return a
}

func TestAnUploadedDiskBecomesAnImage(t *testing.T) {
	w := newWorld(t)
	disk, csrf := strings.Repeat("a disk ", 2*maxBody/7), w.as(fleet.RoleOperator).CSRF // more than a form may have
	for name, c := range map[string]struct{ query, content, csrf, says string }{
		"from another page":   {"name=lab", disk, "forged", "page of this appliance"},
		"a name that is none": {"name=My+Lab", disk, csrf, "1 to 64"},
		"a version too many":  {"name=debian&version=1", disk, csrf, "debian:1 already"},
		"nothing":             {"name=lab", "", csrf, "empty"},
	} {
		if a := w.put(c.query, c.content, c.csrf); a.Code < 400 || !strings.Contains(a.Body.String(), c.says) {
			t.Errorf("%s: %d %s, want %q", name, a.Code, a.Body, c.says)
		}
	}
	if a := w.put("name=lab&version=7", disk, csrf); a.Code != 200 || a.Header().Get("HX-Redirect") != "/images" {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	if o := ended(t, w.works, taking, "lab:7"); o.Err != nil || o.By != "otto" {
		t.Errorf("it ends as %+v", o)
	}
	if w.shelf.added["lab:7"] != disk {
		t.Errorf("the image has %d bytes, the disk %d", len(w.shelf.added["lab:7"]), len(disk))
	}
	if left, err := os.ReadDir(w.dir); err != nil || len(left) > 0 {
		t.Errorf("of the upload is left: %v, %v", left, err)
	}
	events, err := w.fleet.Events(t.Context(), fleet.EventQuery{Kind: "image.added"})
	if err != nil || len(events) != 1 || events[0].Actor != "otto" || !strings.Contains(events[0].Text, "lab:7") {
		t.Errorf("events %+v, %v", events, err)
	}
}

func TestVerificationGoesOnAndIsCancelled(t *testing.T) {
	w := newWorld(t)
	goOn := make(chan struct{})
	w.shelf.verify = func(ctx context.Context, o api.VerifyOrder, progress func(api.Progress)) (*api.VerifyReport, error) {
		progress(api.Progress{Done: 4.5e9, Total: 18e9})
		select {
		case <-goOn:
			return &api.VerifyReport{Images: []api.VerifiedImage{{Image: o.Image, Damage: []api.Damage{{Text: "pack 4711 of debian:2 lacks its end"}}}}}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b := w.open(t, how{Role: fleet.RoleOperator}, "/images/debian:2")
	b.click(`form[action="/images/verify"] button`)
	b.says("#works", "4.5 GB of 18 GB")
	b.says("#works", "25 %")
	b.expect("status of 409")
	b.click(`form[action="/images/verify"] button`)
	b.says(".answer", "under way already")
	b.load("/images") // it goes on
	b.says("#works", "Verify debian:2")
	b.axe()
	b.click(`#works form button`)
	b.says("#works", "cancelled")
	if o := ended(t, w.works, verifying, "debian:2"); !o.Cancelled {
		t.Errorf("cancelled, it ends as %+v", o)
	}
	b.load("/images/debian:2")
	b.click(`form[action="/images/verify"] button`)
	b.says("#works", "25 %")
	close(goOn)
	b.says("#works", "1 of 1 images are damaged")
	b.says(".damage", "pack 4711 of debian:2 lacks its end")
	b.load("/images")
	b.says(`td[data-label="Health"]`, "damaged")
	if events, err := w.fleet.Events(t.Context(), fleet.EventQuery{Kind: "image.damaged"}); err != nil || len(events) != 1 || events[0].Actor != "" && events[0].Actor != "otto" {
		t.Errorf("events %+v, %v", events, err)
	}
}

func TestImagesAreUploadedComparedAndRemovedOnTheirPages(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "lab.raw")
	if err := os.WriteFile(file, []byte(strings.Repeat("sector", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	b := w.open(t, how{Role: fleet.RoleAdmin}, "/images")
	b.click(`button[hx-get="/images/upload"]`)
	b.visible("#upload-form")
	b.upload(`#upload-form input[type="file"]`, file)
	b.typed(`#upload-form input[name="name"]`, "Lab")
	b.axe()
	b.expect("status of 400")
	b.click("#upload-form button.main")
	b.says("#upload-form .answer", "1 to 64")
	b.typed(`#upload-form input[name="name"]`, "lab")
	b.click("#upload-form button.main")
	b.says("main > .message", "The disk is here")
	b.says("#works", "image lab:1 is there")

	b.load("/images/debian:2")
	b.says("#diff", "A machine with debian:1 fetches 1.9 GB for debian:2")
	b.says("main", "7.8 GB")
	b.choose(`select[name="from"]`, "windows:1")
	b.says("#diff", "A machine with windows:1")

	b.click(`button[hx-get="/images/debian:2/remove"]`)
	b.typed(`dialog input[name="name"]`, "debian:2")
	b.axe()
	b.click("dialog button.danger")
	b.says("main > .message", "Image debian:2 is removed")
	if len(w.shelf.removed) != 1 || w.shelf.removed[0] != "debian:2" {
		t.Errorf("removed %v", w.shelf.removed)
	}

	b.click(`button[hx-get="/images/prune"]`)
	b.says("dialog", "4.1 GB")
	b.axe()
	b.click("dialog button.main")
	b.says("#works", "4.1 GB are freed")
}

// TestImagesComeAndGoWhileSomebodyLooks: what others do shows without a reload, and the repository is asked when something happened alone.
func TestImagesComeAndGoWhileSomebodyLooks(t *testing.T) {
	w := newWorld(t)
	all := w.shelf.list
	w.shelf.put(nil)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/images")
	b.until(`document.documentElement.dataset.heard === "1"`)
	b.says("#images-none", "No images yet")
	if eval[bool](b, `document.getElementById("images-table").checkVisibility() || document.getElementById("images-verify").checkVisibility()`) {
		t.Error("without images there is a table, or a button to verify all")
	}
	w.shelf.put(all[2:])
	w.note("image.captured", "captured windows:1 from golden")
	b.says("#images-table", "windows:1")
	eval[bool](b, `(window.kept = document.getElementById("family-windows"), true)`)
	w.shelf.put(all)
	w.note("image.added", "image debian:2 was made of a disk that was uploaded")
	b.until(`[...document.querySelectorAll("#images-table tbody")].map((e) => e.id).join() === "family-debian,family-windows"`)
	b.until(`document.querySelectorAll("#images-table tr.family").length === 2 && document.getElementById("images-verify").checkVisibility()`)
	b.axe()
	b.picture("images-came-" + b.how.String())
	eval[bool](b, `(window.kept = document.getElementById("family-windows"), true)`)
	w.shelf.put(all[1:])
	w.note("image.removed", "image debian:1 was removed")
	b.until(`!document.getElementById("family-debian").innerText.includes("debian:1")`)
	if !eval[bool](b, `window.kept.isConnected`) {
		t.Error("what did not change was sent")
	}

	b.load("/images/debian:2")
	b.until(`document.documentElement.dataset.heard === "1"`)
	b.says("#diff", "A machine with windows:1")
	b.says("#taken", "7.8 GB")
	eval[bool](b, `(window.kept = document.querySelector("#taken dl"), true)`)
	w.shelf.put(all)
	w.note("image.added", "image debian:1 was made of /srv/debian.raw")
	b.until(`document.querySelectorAll("#compare option").length === 2`)
	b.until(`!window.kept.isConnected`) // counted again
	b.says("#diff", "A machine with debian:1 fetches")
	before := w.shelf.lists()
	id := w.machine("one", true) // an event that is not about images
	b.load("/images/windows:1")
	b.until(`document.documentElement.dataset.heard === "1"`)
	w.note("machine.seen", "one was seen: "+id)
	w.shelf.put(all[:2])
	w.note("image.removed", "image windows:1 was removed")
	b.expect("status of 404")
	b.says("main", "windows:1") // that there is none
	b.until(`document.body.dataset.page === "refused"`)
	if n := w.shelf.lists() - before; n != 2 { // with the page, and when it was removed
		t.Errorf("the repository was asked %d times", n)
	}
}

func TestTheBrowserDownloadsADisk(t *testing.T) {
	w := newWorld(t)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/images/debian:1")
	if n := eval[int](b, `fetch(document.querySelector('a[download$=".raw"]').href).then(r => r.blob()).then(b => b.size)`); n != exportLength {
		t.Errorf("the download has %d bytes", n)
	}
}

// TestAVersionIsRemovedByKeysAlone: from the list to its page, to the dialog, to the word that confirms.
func TestAVersionIsRemovedByKeysAlone(t *testing.T) {
	w := newWorld(t)
	b := w.open(t, how{Role: fleet.RoleAdmin}, "/images")
	b.tabTo(`a[href="/images/debian:1"]`)
	b.press(kb.Enter)
	b.until(`location.pathname === "/images/debian:1" && document.body.dataset.page === "image"`)
	b.tabTo(`button[hx-get="/images/debian:1/remove"]`)
	b.press(kb.Enter)
	b.visible(`dialog input[name="name"]`)
	b.tabTo(`dialog input[name="name"]`)
	b.expect("status of 400")
	b.press("debian:3" + kb.Enter)
	b.says("dialog .answer", "type debian:1")
	if got := eval[string](b, `document.querySelector('dialog input[name="name"]').value`); got != "debian:3" {
		t.Errorf("after a refusal the field has %q", got)
	}
	b.press(kb.Backspace + "1" + kb.Enter)
	b.says("main > .message", "Image debian:1 is removed")
}

// TestAnUploadIsNotBrokenOffByAKey: Escape and Cancel ask first.
func TestAnUploadIsNotBrokenOffByAKey(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "lab.raw")
	if err := os.WriteFile(file, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := w.open(t, how{Role: fleet.RoleOperator}, "/images")
	eval[bool](b, `(() => { XMLHttpRequest.prototype.send = () => {}; XMLHttpRequest.prototype.abort = function () { this.onabort(); }; return true; })()`) // an upload that takes long
	b.click(`button[hx-get="/images/upload"]`)
	b.visible("#upload-form")
	b.upload(`#upload-form input[type="file"]`, file)
	b.typed(`#upload-form input[name="name"]`, "lab")
	b.click("#upload-form button.main")
	b.until(`document.querySelector("#upload-form button.main").disabled`)
	for range 3 {
		b.press(kb.Escape)
	}
	b.click("#dialog [data-close]")
	b.until(`document.getElementById("dialog").open && !document.querySelector(".breakoff").hidden`)
	b.axe()
	b.click("#dialog [data-break]")
	b.until(`!document.getElementById("dialog").open`)
}

package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// TestIfMatchComparesAsTheStandardSays: RFC 9110 §13.1.1, by strong comparison.
func TestIfMatchComparesAsTheStandardSays(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	v := a.visit().with("Authorization", "Bearer "+a.user("anna", fleet.RoleAdmin))
	status, _, header := v.do("POST", "/api/v1/groups", fleet.GroupOrder{Name: "lab"})
	if status != 201 {
		t.Fatal(status)
	}
	tag := header.Get("ETag") // of the group as it is before each case
	for _, c := range []struct {
		match  string // $ is the present ETag
		status int
	}{
		{"$", 200}, {"*", 200}, {`"77", $`, 200}, {`$,"77"`, 200}, {`, "x,y" ,, $ ,`, 200}, {`W/$, $`, 200},
		{"W/$", 412}, {`"77"`, 412}, {`"77", "78"`, 412}, {`"77", W/$`, 412}, {`"x"`, 412}, {`"+1"`, 412}, {`"01"`, 412}, {`""`, 412},
		{"1", 400}, {`"1`, 400}, {`$ "1"`, 400}, {`$; "1"`, 400}, {"w/$", 400},
	} {
		match := strings.ReplaceAll(c.match, "$", tag)
		status, answer, header := v.with("If-Match", match).do("PATCH", "/api/v1/groups/lab", []byte(fmt.Sprintf(`{"notes":"%s"}`, tag[1:len(tag)-1])))
		if status != c.status {
			t.Errorf("If-Match: %s, where the ETag is %s: %d %s, want %d", match, tag, status, answer, c.status)
		}
		if status == 200 {
			tag = header.Get("ETag")
		}
	}
	// What follows has its own look-up of the present version each.
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	d, err := a.operator.Deploy(t.Context(), api.Order{Order: fleet.Order{Image: "debian", Machines: []string{"one"}}})
	if err != nil {
		t.Fatal(err)
	}
	at := "/jobs/" + a.jobOf(d.ID)
	for _, c := range []struct{ get, method, path, body string }{
		{"/machines/one", "PATCH", "/machines/one", `{"notes":"x"}`}, {"/settings", "PATCH", "/settings", `{"limit":7}`},
		{at, "POST", at + "/priority", `{"priority":5}`}, {at, "POST", at + "/pause", ""},
		{"/users/anna", "PATCH", "/users/anna", `{"role":"admin"}`},
	} {
		var body []byte
		if c.body != "" {
			body = []byte(c.body)
		}
		v.with("If-Match", `"7777", "7778"`).refused(412, fleet.CodeChanged, c.method, "/api/v1"+c.path, body)
		_, _, header := v.do("GET", "/api/v1"+c.get, nil)
		list := `"7777", ` + header.Get("ETag")
		if status, answer, _ := v.with("If-Match", list).do(c.method, "/api/v1"+c.path, body); status != 200 {
			t.Errorf("%s %s with If-Match: %s: %d %s", c.method, c.path, list, status, answer)
		}
	}
}

// jobOf returns the ID of the only job of a deployment.
func (a *appliance) jobOf(deployment string) string {
	a.t.Helper()
	jobs, err := a.operator.Jobs(a.t.Context(), api.JobQuery{Deployment: deployment})
	if err != nil || len(jobs) != 1 {
		a.t.Fatalf("%+v, %v", jobs, err)
	}
	return jobs[0].ID
}

// bound says whether an operation takes If-Match.
func bound(op map[string]any) bool {
	list, _ := op["parameters"].([]any)
	return slices.ContainsFunc(list, func(p any) bool { return p.(map[string]any)["name"] == "If-Match" })
}

// TestEveryChangeOfARecordIsForTheVersionThatSomebodySaw, if that is asked for: where an operation is added that does not look, this fails.
func TestEveryChangeOfARecordIsForTheVersionThatSomebodySaw(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table+"52:54:00:00:00:04,four,\r\n52:54:00:00:00:05,five,\r\n"), false); err != nil {
		t.Fatal(err)
	}
	a.user("vera", fleet.RoleViewer)
	v := a.visit().with("Authorization", "Bearer "+a.user("anna", fleet.RoleAdmin))
	deploy := func(machine string) string {
		t.Helper()
		d, err := a.operator.Deploy(t.Context(), api.Order{Order: fleet.Order{Image: "debian", Machines: []string{machine}}})
		if err != nil {
			t.Fatal(err)
		}
		return d.ID
	}
	d, cancelled := deploy("one"), a.jobOf(deploy("two"))
	if _, err := a.operator.Operate(t.Context(), cancelled, "cancel"); err != nil {
		t.Fatal(err)
	}
	j := a.jobOf(d)
	tried := map[string]bool{}
	for _, c := range []struct {
		status             int // with the version that is there
		method, path, name string
		body               string
	}{
		{200, "PATCH", "/machines/{name}", "one", `{"notes":"x"}`}, {200, "POST", "/machines/{name}/admit", "one", ""}, {200, "POST", "/machines/{name}/merge", "five", `{"into":"four"}`},
		{204, "DELETE", "/machines/{name}", "three", ""},
		{200, "PATCH", "/groups/{name}", "lab", `{"notes":"x"}`}, {200, "POST", "/groups/{name}/remove", "lab", `{"machines":["one"]}`}, {200, "POST", "/groups/{name}/add", "lab", `{"machines":["one"]}`},
		{204, "DELETE", "/groups/{name}", "lab", ""},
		{200, "POST", "/jobs/{id}/priority", j, `{"priority":5}`}, {200, "POST", "/jobs/{id}/pause", j, ""}, {200, "POST", "/jobs/{id}/resume", j, ""},
		{200, "POST", "/deployments/{id}/pause", d, ""}, {200, "POST", "/deployments/{id}/resume", d, ""}, {200, "POST", "/deployments/{id}/close", d, ""},
		{200, "POST", "/jobs/{id}/cancel", j, ""}, {201, "POST", "/jobs/{id}/retry", cancelled, ""}, {200, "POST", "/deployments/{id}/cancel", d, ""},
		{200, "POST", "/deployments/{id}/retry-failed", d, ""}, {400, "POST", "/deployments/{id}/rollback", d, ""},
		{200, "PATCH", "/users/{name}", "vera", `{"role":"operator"}`}, {204, "DELETE", "/users/{name}", "vera", ""},
	} {
		tried[c.method+" /api/v1"+c.path] = true
		path := strings.NewReplacer("{name}", c.name, "{id}", c.name).Replace("/api/v1" + c.path)
		record := strings.Join(strings.Split(path, "/")[:5], "/")
		tag := func() string {
			t.Helper()
			status, _, header := v.do("GET", record, nil)
			if status != 200 || header.Get("ETag") == "" {
				t.Fatalf("%s: %d, ETag %q", record, status, header.Get("ETag"))
			}
			return versionOf(header.Get("ETag"))
		}
		seen := tag()
		var body []byte
		if c.body != "" {
			body = []byte(c.body)
		}
		for _, other := range []string{`"7777"`, `"7777", "7778"`, "W/" + seen} {
			v.with("If-Match", other).refused(412, fleet.CodeChanged, c.method, path, body)
		}
		if tag() != seen {
			t.Errorf("%s %s was refused and done", c.method, path)
		}
		if status, answer, _ := v.with("If-Match", `"7777", `+seen).do(c.method, path, body); status != c.status {
			t.Errorf("%s %s with If-Match: %s: %d %s", c.method, path, seen, status, answer)
		}
	}
	never := map[string]string{
		"DELETE /api/v1/keys/{id}": "an API token never changes", "POST /api/v1/tokens/{id}/revoke": "whatever became of it, it ends",
		"DELETE /api/v1/images/{ref}": "a version of an image never changes", "POST /api/v1/images/{ref}/open": "the same", "POST /api/v1/images/{ref}/close": "the same",
		"POST /api/v1/images/{ref}/check-disk": "the same",
	}
	for path, methods := range paths(t, a) {
		for method, op := range methods {
			id := strings.ToUpper(method) + " " + path
			switch of := strings.Contains(path, "{") && method != "get"; {
			case of && never[id] == "" && (!bound(op) || !tried[id]):
				t.Errorf("%s takes no If-Match, or no test gives it one", id)
			case !of && bound(op) && id != "PATCH /api/v1/settings", never[id] != "" && bound(op):
				t.Errorf("%s takes an If-Match", id)
			}
		}
	}
}

// versionOf is the part of an ETag that is the record's version, as an ETag.
func versionOf(tag string) string {
	version, _, _ := strings.Cut(strings.Trim(tag, `"`), "-")
	return `"` + version + `"`
}

// TestWhatIsReadAgainAndIsTheSameIsNotSentAgain: RFC 9110 §13.1.2.
func TestWhatIsReadAgainAndIsTheSameIsNotSentAgain(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	d, err := a.operator.Deploy(t.Context(), api.Order{Order: fleet.Order{Image: "debian", Machines: []string{"one"}}})
	if err != nil {
		t.Fatal(err)
	}
	v := a.visit().with("Authorization", "Bearer "+a.user("anna", fleet.RoleAdmin))
	names := strings.NewReplacer("/machines/{name}", "/machines/one", "/groups/{name}", "/groups/lab", "/users/{name}", "/users/anna", "/jobs/{id}", "/jobs/"+a.jobOf(d.ID),
		"/deployments/{id}", "/deployments/"+d.ID, "{ref}", "debian", "{to}", "debian")
	asked := 0
	for path, methods := range paths(t, a) {
		op := methods["get"]
		if op == nil || path == "/api/v1/live" || strings.HasSuffix(path, "/disk") {
			continue
		}
		asked++
		path = names.Replace(path)
		var tag string
		status := 0
		for range 100 { // what the schedule does meanwhile is a change
			var header http.Header
			if status, _, header = v.do("GET", path, nil); status != 200 || header.Get("ETag") == "" {
				t.Fatalf("%s: %d, ETag %q", path, status, header.Get("ETag"))
			}
			tag = header.Get("ETag")
			if status, _, _ = v.with("If-None-Match", tag).do("GET", path, nil); status == 304 {
				break
			}
		}
		if status != 304 {
			t.Fatalf("%s: %d with the ETag of just now, %s", path, status, tag)
		}
		if op["responses"].(map[string]any)["304"] == nil {
			t.Errorf("%s: the description does not tell of the answer 304", path)
		}
	}
	if asked < 15 {
		t.Errorf("%d operations were asked", asked)
	}
	_, _, header := v.do("GET", "/api/v1/groups/lab", nil)
	one := header.Get("ETag")
	_, _, header = v.do("GET", "/api/v1/groups", nil)
	list := header.Get("ETag")
	for _, c := range []struct {
		path, none string
		status     int
	}{
		{"/groups/lab", one, 304}, {"/groups/lab", "W/" + one, 304}, {"/groups/lab", "*", 304}, {"/groups/lab", `"x", ` + one, 304}, {"/groups", list, 304}, {"/groups", strings.TrimPrefix(list, "W/"), 304},
		{"/groups/lab", versionOf(one), 200}, {"/groups/lab", list, 200}, {"/groups/lab", "nonsense", 200}, {"/groups/none", "*", 404}, {"/groups", one, 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			status, b, header := v.with("If-None-Match", c.none).do(method, "/api/v1"+c.path, nil)
			if status != c.status || (status == 304 || method == "HEAD") && len(b) > 0 || status == 304 && (header.Get("ETag") == "" || header.Get("Content-Type") != "") {
				t.Errorf("%s %s, If-None-Match: %s: %d with %d bytes, want %d", method, c.path, c.none, status, len(b), c.status)
			}
		}
	}
	if status, _, _ := v.with("If-Match", list).do("PATCH", "/api/v1/groups/lab", []byte(`{"notes":"x"}`)); status != 412 {
		t.Errorf("the ETag of a list was taken for that of a record: %d", status)
	}
	status, _, header := v.do("PATCH", "/api/v1/groups/lab", []byte(`{"notes":"by the door"}`))
	if status != 200 || header.Get("ETag") == one {
		t.Fatalf("%d, ETag %q", status, header.Get("ETag"))
	}
	for path, tag := range map[string]string{"/groups/lab": one, "/groups": list} {
		if status, b, _ := v.with("If-None-Match", tag).do("GET", "/api/v1"+path, nil); status != 200 || !strings.Contains(string(b), "by the door") {
			t.Errorf("%s after a change: %d %s", path, status, b)
		}
	}
	if status, _, again := v.with("If-None-Match", header.Get("ETag")).do("GET", "/api/v1/groups/lab", nil); status != 304 {
		t.Errorf("the answer to a change and what is read then differ: %s, %s", header.Get("ETag"), again.Get("ETag"))
	}
}

// TestJobsOfALargeOrderAreAskedForInParts: who waits for an order names all of its jobs.
func TestJobsOfALargeOrderAreAskedForInParts(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	made, err := a.operator.Work(t.Context(), fleet.WorkOrder{Kind: job.InventoryOf, Machines: []string{"one", "two", "three"}})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 9000 {
		ids = append(ids, fmt.Sprintf("%012x", i))
	}
	ids = append(append([]string{made[0].ID}, ids...), made[2].ID)
	list, err := a.operator.Jobs(t.Context(), api.JobQuery{ID: strings.Join(ids, ",")})
	if err != nil || len(list) != 2 || list[0].ID != made[0].ID || list[1].ID != made[2].ID {
		t.Fatalf("%d jobs, %v", len(list), err)
	}
	if list, err = a.operator.Jobs(t.Context(), api.JobQuery{}); err != nil || len(list) != 3 {
		t.Errorf("all: %d jobs, %v", len(list), err)
	}
}

// TestARetryOfAWipeIsConfirmedAsAWipeIs: the word of the order is not the word of another one.
func TestARetryOfAWipeIsConfirmedAsAWipeIs(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	ended := func(kind job.Kind, machine, confirm string) string {
		t.Helper()
		made, err := a.operator.Work(t.Context(), fleet.WorkOrder{Kind: kind, Machines: []string{machine}, Confirm: confirm})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.operator.Operate(t.Context(), made[0].ID, "cancel"); err != nil {
			t.Fatal(err)
		}
		return made[0].ID
	}
	wipe, inventory := ended(job.WipeDisk, "one", "wipe"), ended(job.InventoryOf, "two", "")
	v := a.visit().with("Authorization", "Bearer "+a.user("otto", fleet.RoleOperator))
	v.refused(400, fleet.CodeUnconfirmed, "POST", "/api/v1/jobs/"+wipe+"/retry", nil)
	v.refused(400, fleet.CodeUnconfirmed, "POST", "/api/v1/jobs/"+wipe+"/retry?confirm=yes", nil)
	v.refused(400, fleet.CodeInvalid, "POST", "/api/v1/jobs/"+inventory+"/retry?confirm=wipe", nil)
	if list, err := a.operator.Jobs(t.Context(), api.JobQuery{State: "open"}); err != nil || len(list) != 0 {
		t.Fatalf("%d jobs, %v", len(list), err)
	}
	for id, confirm := range map[string]string{wipe: "wipe", inventory: ""} {
		if j, err := a.operator.Retry(t.Context(), id, confirm); err != nil || j.ID == id || j.State != job.Waiting {
			t.Errorf("%+v, %v", j, err)
		}
	}
}

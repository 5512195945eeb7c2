package api_test

import (
	"fmt"
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
	jobs, err := a.operator.Jobs(t.Context(), api.JobQuery{Deployment: d.ID})
	if err != nil || len(jobs) != 1 {
		t.Fatal(err)
	}
	at := "/jobs/" + jobs[0].ID
	for _, c := range []struct{ get, method, path, body string }{
		{"/machines/one", "PATCH", "/machines/one", `{"notes":"x"}`}, {"/settings", "PATCH", "/settings", `{"limit":7}`},
		{at, "POST", at + "/priority", `{"priority":5}`}, {at, "POST", at + "/pause", ""},
		{"", "PATCH", "/users/anna", `{"role":"admin"}`},
	} {
		var body []byte
		if c.body != "" {
			body = []byte(c.body)
		}
		v.with("If-Match", `"7777", "7778"`).refused(412, fleet.CodeChanged, c.method, "/api/v1"+c.path, body)
		list := `"7777"`
		for n := range 20 { // of a user no answer tells the version but that to a change
			list += fmt.Sprintf(`,"%d"`, n)
		}
		if c.get != "" {
			_, _, header := v.do("GET", "/api/v1"+c.get, nil)
			list = `"7777", ` + header.Get("ETag")
		}
		if status, answer, _ := v.with("If-Match", list).do(c.method, "/api/v1"+c.path, body); status != 200 {
			t.Errorf("%s %s with If-Match: %s: %d %s", c.method, c.path, list, status, answer)
		}
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

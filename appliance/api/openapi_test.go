package api_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
	"seedbed/images/judge"
)

// judged returns what libopenapi-validator says of a description, and whether it is valid.
func judged(t *testing.T, description any) (says string, valid bool) {
	t.Helper()
	program, err := judge.OpenAPI.Build()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(description)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "openapi.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, path).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// at returns what stands at a path of a description.
func at(description map[string]any, path ...string) map[string]any {
	for _, key := range path {
		description = description[key].(map[string]any)
	}
	return description
}

func TestTheDescriptionIsValidOpenAPI(t *testing.T) {
	t.Parallel()
	a := start(t, fleet.AdmitAuto)
	b, err := a.operators.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	parsed := func() (d map[string]any) {
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if says, valid := judged(t, parsed()); !valid {
		t.Errorf("%s", says)
	}
	// The judge must be one that can say no.
	for what, damage := range map[string]func(d map[string]any){
		"no title":                   func(d map[string]any) { delete(at(d, "info"), "title") },
		"another version of OpenAPI": func(d map[string]any) { d["openapi"] = "3.1" },
		"an answer without its words": func(d map[string]any) {
			delete(at(d, "paths", "/api/v1/machines", "get", "responses", "200"), "description")
		},
		"a parameter nowhere": func(d map[string]any) {
			at(d, "paths", "/api/v1/machines", "get")["parameters"].([]any)[0].(map[string]any)["in"] = "nowhere"
		},
		"a path without its slash": func(d map[string]any) {
			paths := at(d, "paths")
			paths["machines"] = maps.Clone(paths["/api/v1/machines"].(map[string]any))
		},
		"a key that is none": func(d map[string]any) { at(d, "paths", "/api/v1/machines", "get")["sumary"] = "x" },
	} {
		d := parsed()
		damage(d)
		if says, valid := judged(t, d); valid {
			t.Errorf("%s: the judge takes it for valid: %s", what, strings.TrimSpace(says))
		}
	}
}

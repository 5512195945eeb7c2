package api

import (
	"bytes"
	"context"
	"mime"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"seedbed/appliance/fleet"
)

// Named is the path of one record.
type Named struct {
	Name string `path:"name" maxLength:"128" doc:"ID or name; of a machine, its MAC or serial number too."`
}

// MatchedName is the path of one record that is changed.
type MatchedName struct {
	Named
	Match
}

// MachineQuery says which machines are asked for; empty fields ask for all.
type MachineQuery struct {
	Group    string `query:"group" maxLength:"64" doc:"Only machines of this group."`
	State    string `query:"state" maxLength:"32" doc:"Only machines whose job is in this state: waiting, claimed, running, paused, succeeded, failed, cancelled; or none."`
	Admitted string `query:"admitted" enum:"true,false" doc:"Only machines that are admitted, or that are not."`
	Text     string `query:"text" maxLength:"128" doc:"Only machines with this in name, MAC, serial number, model, image or notes."`
}

// fits reports whether a machine is asked for.
func (q MachineQuery) fits(m *fleet.MachineView) bool {
	switch {
	case q.Group != "" && !slices.Contains(m.Groups, fleet.GroupID(q.Group)),
		q.State == "none" && m.State != "",
		q.State != "" && q.State != "none" && string(m.State) != q.State,
		q.Admitted != "" && (q.Admitted == "true") != m.Admitted:
		return false
	}
	if q.Text == "" {
		return true
	}
	words := append([]string{m.ID, m.Name, m.Notes, m.UUID}, m.MACs...)
	if m.Inventory != nil {
		words = append(words, m.Inventory.Serial, m.Inventory.Manufacturer+" "+m.Inventory.Product)
	}
	if m.Deployed != nil {
		words = append(words, m.Deployed.ImageName)
	}
	text := strings.ToLower(q.Text)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(strings.ToLower(w), text) })
}

func machineAnswer(m *fleet.MachineView, err error) (*versioned[Machine], error) {
	if err != nil {
		return nil, err
	}
	return &versioned[Machine]{etag(m.Version), viewMachine(*m)}, nil
}

// machineVersion returns what looks up the version of a machine, which may be named by the code on its screen too.
func (o *Operators) machineVersion(name string) func() (int64, error) {
	return func() (int64, error) {
		for _, m := range o.fleet.Machines() {
			if m.Code != "" && strings.EqualFold(m.Code, strings.TrimSpace(name)) {
				return m.Version, nil
			}
		}
		m, err := o.fleet.Machine(name)
		if err != nil {
			return 0, err
		}
		return m.Version, nil
	}
}

func (o *Operators) addMachines() {
	f := o.fleet
	add(o, "GET", "/machines", "listMachines", "List the machines", func(_ context.Context, in *struct {
		Cut
		MachineQuery
	}) (*paged[Machine], error) {
		list := []Machine{}
		for _, m := range f.Machines() {
			if in.fits(&m) {
				list = append(list, viewMachine(m))
			}
		}
		return page(list, in.Cut, func(m Machine) string { return datedKey(m.FirstSeen, m.ID) })
	})
	add(o, "GET", "/machines/{name}", "getMachine", "Show a machine", func(_ context.Context, in *Named) (*versioned[Machine], error) {
		return machineAnswer(f.Machine(in.Name))
	})
	add(o, "PATCH", "/machines/{name}", "editMachine", "Change what people say of a machine", func(ctx context.Context, in *struct {
		MatchedName
		Body fleet.MachineOrder
	}) (*versioned[Machine], error) {
		version, err := in.wanted(o.machineVersion(in.Name))
		if err != nil {
			return nil, err
		}
		return machineAnswer(f.EditMachine(ctx, in.Name, version, in.Body))
	}, matched)
	add(o, "DELETE", "/machines/{name}", "removeMachine", "Forget a machine", func(ctx context.Context, in *MatchedName) (*nothing, error) {
		ctx, err := in.expecting(ctx, o.machineVersion(in.Name))
		if err != nil {
			return nil, err
		}
		return done(f.RemoveMachine(ctx, in.Name))
	}, matched)
	add(o, "POST", "/machines/{name}/admit", "admitMachine", "Admit a machine, by the code on its screen or by its name", func(ctx context.Context, in *MatchedName) (*versioned[Machine], error) {
		ctx, err := in.expecting(ctx, o.machineVersion(in.Name))
		if err != nil {
			return nil, err
		}
		m, err := f.Admit(ctx, in.Name)
		if err != nil {
			return nil, err
		}
		return machineAnswer(f.Machine(m.ID))
	}, matched)
	add(o, "POST", "/machines/{name}/merge", "mergeMachine", "Say that a machine is the same computer as another, which stays", func(ctx context.Context, in *struct {
		MatchedName
		Body struct {
			Into string `json:"into" maxLength:"128" doc:"The machine that stays."`
		}
	}) (*versioned[Machine], error) {
		ctx, err := in.expecting(ctx, o.machineVersion(in.Name))
		if err != nil {
			return nil, err
		}
		if err := f.MergeMachines(ctx, in.Name, in.Body.Into); err != nil {
			return nil, err
		}
		return machineAnswer(f.Machine(in.Body.Into))
	}, matched)
	add(o, "POST", "/wake", "wake", "Send machines the packet that wakes them", func(ctx context.Context, in *struct{ Body Names }) (*answer[*fleet.Woken], error) {
		if len(in.Body.Machines)+len(in.Body.Groups) == 0 {
			return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "say which machines, or groups of them, are to be woken"}
		}
		return body(f.Wake(ctx, in.Body.Machines, in.Body.Groups))
	})
	add(o, "GET", "/machines.csv", "exportMachines", "The table of machines as CSV", func(_ context.Context, _ *struct{}) (*document, error) {
		var b bytes.Buffer
		err := f.ExportMachines(&b)
		return &document{"text/csv; charset=utf-8", b.Bytes()}, err
	}, produces("text/csv"))
	add(o, "POST", "/machines.csv", "importMachines", "Take over a table of machines, all of it or nothing", func(ctx context.Context, in *struct {
		AsTable
		Dry     bool   `query:"dry" doc:"Only say what it would do."`
		RawBody []byte `contentType:"text/csv"`
	}) (*answer[*fleet.Imported], error) {
		return body(f.ImportMachines(ctx, bytes.NewReader(in.RawBody), in.Dry))
	}, func(op *huma.Operation) { op.MaxBodyBytes = maxTable })
}

// AsTable refuses a body that is said to be something else than a table.
type AsTable struct{}

// Resolve implements huma.Resolver.
func (AsTable) Resolve(c huma.Context) []error {
	kind := c.Header("Content-Type")
	if name, _, err := mime.ParseMediaType(kind); kind == "" || err == nil && name == "text/csv" {
		return nil
	}
	return []error{&problem{Problem: problemOf(&fleet.Refusal{Code: codeWrongKind, Detail: "a table of machines is sent as text/csv, not as " + kind})}}
}

// maxTable bounds a table of machines in bytes: 20,000 with long notes.
const maxTable = 16 << 20

// document is an answer that is no JSON.
type document struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// produces describes a document.
func produces(kinds ...string) func(*huma.Operation) {
	return func(op *huma.Operation) {
		content := map[string]*huma.MediaType{}
		for _, kind := range kinds {
			content[kind] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
		}
		op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: content}}
	}
}

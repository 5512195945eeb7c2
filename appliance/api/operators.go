package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/sse"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/limit"
)

// base is where this version of the operators' interface is, Path the pattern of all below it.
const (
	base = "/api/v1"
	Path = base + "/"
)

// Config of the operators' interface. Fleet and Images are needed.
type Config struct {
	Fleet  *fleet.Fleet
	Images Images
	// Alerts sends test messages; nil is an appliance that sends none.
	Alerts Tester
	// Program is the version of the program; empty is "development".
	Program string
	Log     *slog.Logger // nil is none
	// Boots is what was seen of machines that boot; nil is nothing.
	Boots Boots
}

// Operators is what people and their programs ask an appliance: all below /api/v1, described by /api/v1/openapi.json.
// Safe for concurrent use.
type Operators struct {
	fleet  *fleet.Fleet
	images Images
	log    *slog.Logger
	mux    *http.ServeMux
	api    huma.API
	knocks *knocks
	// strangers bounds requests without a name.
	strangers *limit.Limiter
	live      *live
	boots     Boots // nil is none
}

// NewOperators makes the operators' interface. Nothing is started.
func NewOperators(c Config) *Operators {
	humaOnce.Do(ownHuma)
	o := &Operators{fleet: c.Fleet, images: c.Images, log: c.Log, mux: http.NewServeMux(), knocks: newKnocks(), strangers: limit.New(strangersMay), live: newLive(c.Fleet)}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	program := c.Program
	if program == "" {
		program = "development"
	}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Seedbed", Version: program, Description: "What people and programs ask an appliance. Lists come in pages: " +
				"next is the cursor of the page after. Errors are problems (RFC 9457) whose code is a short fixed word."},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":  {Type: "http", Scheme: "bearer", Description: "An API token: seedbed user token new."},
					"cookie": {Type: "apiKey", In: "cookie", Name: CookieName, Description: "Of a login; what changes something has the header " + CSRFHeader + " too."},
				},
			},
			Security: []map[string][]string{{"token": {}}, {"cookie": {}}},
		},
		Formats: map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}, DefaultFormat: "application/json",
	}
	o.api = humago.New(o.mux, config)
	o.addMachines()
	o.addBoots(c.Boots)
	o.addGroups()
	o.addDeployments()
	o.addJournal()
	o.addJobs()
	o.addWork()
	o.addImages()
	o.addGuests()
	o.addUsers()
	o.addSite()
	o.addAlerts(c.Alerts)
	o.describeConditions()
	o.describe(".json", "application/vnd.oai.openapi+json", o.api.OpenAPI().MarshalJSON)
	o.describe(".yaml", "application/vnd.oai.openapi+yaml", o.api.OpenAPI().YAML)
	return o
}

// describeConditions enters what is done for all that is read, see held.
func (o *Operators) describeConditions() {
	for _, path := range o.api.OpenAPI().Paths {
		op := path.Get
		if op == nil || slices.ContainsFunc(slices.Collect(maps.Keys(op.Responses["200"].Content)), lasts) {
			continue
		}
		op.Parameters = append(op.Parameters, &huma.Param{Name: "If-None-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "ETags of answers that the caller has, with commas between: where this one is among them, it is told 304 alone."})
		op.Responses["304"] = &huma.Response{Description: "The caller has this answer already."}
	}
}

// describe serves the description, which is made once, when somebody asks for it.
func (o *Operators) describe(suffix, kind string, text func() ([]byte, error)) {
	once := sync.OnceValues(text)
	o.mux.HandleFunc("GET "+base+"/openapi"+suffix, func(w http.ResponseWriter, r *http.Request) {
		b, err := once()
		if err != nil {
			o.refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", kind)
		w.Write(b) // a caller that is gone needs no answer
	})
}

// OpenAPI is the description of the interface, OpenAPI 3.1 as JSON.
func (o *Operators) OpenAPI() ([]byte, error) { return o.api.OpenAPI().MarshalJSON() }

// schemaName names the schema of a type: those of the packages that people see keep their names, others have their package's before.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	if t.Name() == "" {
		return name
	}
	switch pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]; pkg {
	case "api", "":
		return name
	default:
		first := []rune(pkg)
		first[0] = unicode.ToUpper(first[0])
		return string(first) + name
	}
}

// nothing is the answer 204.
type nothing struct{}

func done(err error) (*nothing, error) { return &nothing{}, err }

// answer is an answer with a body.
type answer[T any] struct {
	Body T
}

func body[T any](v T, err error) (*answer[T], error) { return &answer[T]{v}, err }

// versioned is an answer with a body that is a record.
type versioned[T any] struct {
	Version
	Body T
}

// add adds an operation: "GET", "/machines/{name}".
func add[I, O any](o *Operators, method, path, id, summary string, fn func(context.Context, *I) (*O, error), more ...func(*huma.Operation)) {
	huma.Register(o.api, operation(method, path, id, summary, more...), func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, o.problem(ctx, id, err)
		}
		return out, nil
	})
}

func operation(method, path, id, summary string, more ...func(*huma.Operation)) huma.Operation {
	op := huma.Operation{
		Method: method, Path: base + path, OperationID: id, Summary: summary, Tags: []string{strings.Split(path, "/")[1]},
		Errors: []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden},
		// The door bounds how long a body may take; a bound here would end long answers too.
		BodyReadTimeout: -1,
	}
	if strings.Contains(path, "{") {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	if method != http.MethodGet {
		op.Errors = append(op.Errors, http.StatusConflict)
	}
	for _, fn := range more {
		fn(&op)
	}
	return op
}

// made is the status of an answer with something new.
func made(op *huma.Operation) { op.DefaultStatus = http.StatusCreated }

// matched is for changes that may be refused since somebody else was faster.
func matched(op *huma.Operation) { op.Errors = append(op.Errors, http.StatusPreconditionFailed) }

// long adds an operation that sends how far it is, a Line for each step, and at last its result. role is what it needs.
func long[I any](o *Operators, method, path, id, summary string, role fleet.Role, fn func(context.Context, *I, func(Progress)) (any, error)) {
	lines := func(op *huma.Operation) {
		schema := o.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Line](), true, "Line")
		op.Responses = map[string]*huma.Response{"200": {Description: "A line of JSON for each step; the last one has end, or problem.",
			Content: map[string]*huma.MediaType{"application/x-ndjson": {Schema: schema}}}}
	}
	huma.Register(o.api, operation(method, path, id, summary, lines), func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		if err := fleet.May(ctx, role, strings.ToLower(summary[:1])+summary[1:]); err != nil {
			return nil, o.problem(ctx, id, err)
		}
		if check, ok := any(in).(interface{ check(context.Context) error }); ok {
			if err := check.check(ctx); err != nil {
				return nil, o.problem(ctx, id, err)
			}
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			stream(w, func(progress func(Progress)) (any, error) { return fn(hc.Context(), in, progress) })
		}}, nil
	})
}

// problem is the body of an error answer.
type problem struct {
	job.Problem
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"What is wrong with the request, and where."`
}

func (p *problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter (RFC 9457 §3).
func (p *problem) ContentType(string) string { return "application/problem+json" }

// problem makes an error answer of an error.
func (o *Operators) problem(ctx context.Context, operation string, err error) error {
	p := problemOf(err)
	if ctx.Err() == nil {
		o.log.Log(ctx, levelOf(p), "request refused", "operation", operation, "code", p.Code, "err", err)
	}
	return &problem{Problem: p}
}

// Codes of requests that no operation answers.
const (
	codeNoSuchPath  = "no-such-path"
	codeWrongMethod = "wrong-method"
	codeWrongKind   = "wrong-content-type"
	codeTooLarge    = "too-large"
	codeTooSlow     = "too-slow"
)

var humaOnce sync.Once

// ownHuma has huma's own errors answered like all others, and live streams bounded as they are here. huma keeps this for the whole program.
func ownHuma() {
	sse.WriteTimeout = liveStalled
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		p := &problem{Problem: job.Problem{Title: http.StatusText(status), Status: status, Detail: msg, Code: fleet.CodeInvalid}}
		switch {
		case status == http.StatusRequestEntityTooLarge:
			p.Code = codeTooLarge
		case status == http.StatusUnsupportedMediaType:
			p.Code, p.Detail = codeWrongKind, "the body is to be JSON, and to say so: Content-Type: application/json"
		case status >= 500:
			p.Code = codeInternal
		}
		for _, err := range errs {
			if err == nil {
				continue
			}
			if own, ok := errors.AsType[*problem](err); ok {
				return own
			}
			d := &huma.ErrorDetail{Message: err.Error()}
			if detailed, ok := err.(huma.ErrorDetailer); ok {
				d = detailed.ErrorDetail()
			}
			d.Value = nil // a wrong password is not sent back
			p.Errors = append(p.Errors, d)
			if len(p.Errors) <= 3 {
				p.Detail += "; " + strings.TrimPrefix(fmt.Sprintf("%s: %s", d.Location, d.Message), ": ")
			}
		}
		return p
	}
}

// stream runs a long operation and sends a Line for each step.
func stream(w http.ResponseWriter, work func(progress func(Progress)) (any, error)) {
	out := json.NewEncoder(w)
	send := func(l Line) {
		if out.Encode(l) == nil { // a caller that is gone cancels the request's context, which ends the work
			http.NewResponseController(w).Flush()
		}
	}
	var last time.Time
	begin := func() {
		if last.IsZero() {
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		last = time.Now()
	}
	result, err := work(func(p Progress) {
		if time.Since(last) < progressEvery && p.Done < p.Total {
			return
		}
		begin()
		send(Line{Progress: &p})
	})
	begin()
	end := Line{End: true}
	if err == nil && result != nil {
		end.Result, err = json.Marshal(result)
	}
	if err != nil {
		p := problemOf(err)
		send(Line{Problem: &p})
		return
	}
	send(end)
}

// progressEvery bounds how often progress is sent.
const progressEvery = 200 * time.Millisecond

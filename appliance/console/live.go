package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"net/url"
	"time"

	"seedbed/appliance/fleet"
)

// live is what changes on a page, as it is now.
type live struct {
	parts []part
	// data is for the page's script, by key: what becomes JSON.
	data map[string]any
}

// part is an element of a page.
type part struct {
	ID     string `json:"id"`
	Parent string `json:"in,omitempty"`     // ID of the element that a new one is appended to
	Before string `json:"before,omitempty"` // ID of the element in it that a new one stands before; "" is the end
	HTML   string `json:"html"`             // "" has the element removed
}

// part makes a live part by a block of the page's template. Errors of templates are logged, and shown in the place of the part.
func (v *visit) part(template, id, parent, block string, data any) part {
	var b bytes.Buffer
	if err := v.look.execute(&b, template, block, view{Visit: v, Data: data}); err != nil {
		v.unshown(template, block, err)
		return part{ID: id, Parent: parent, HTML: fmt.Sprintf(`<div id="%s">%s</div>`, id, v.t("The console cannot show this part; the appliance's log says why."))}
	}
	return part{ID: id, Parent: parent, HTML: b.String()}
}

// unshown logs an error of a template once for each visit and block: a live part is made again and again.
func (v *visit) unshown(template, block string, err error) {
	at := template + "/" + block
	if v.log == nil || v.told[at] {
		return
	}
	if v.told == nil {
		v.told = map[string]bool{}
	}
	v.told[at] = true
	v.log.Error("console cannot make a part of a page", "page", template, "part", block, "path", v.URL.Path, "err", err)
}

// Bounds of who listens, and of how often changes are looked for: half a second is as often as a person can read.
const (
	maxListeners = 200
	liveEvery    = 500 * time.Millisecond
	liveSilence  = 15 * time.Second
	// liveStalled is how long a listener may take no byte. With HTTP/2 the bound of a write ends a stream that is silent, too.
	liveStalled = 2 * liveSilence
)

// seen is what one listener has.
type seen struct {
	seed  maphash.Seed
	parts map[string]uint64
	data  map[string]uint64
}

// live sends what changes on a page as server-sent events: "parts" a list of parts, "data" a map by key, whose entries are null where
// they are gone, "alive" nothing, so that both ends notice that the other is gone, and "ended" when the stay has ended.
func (c *console) live(w http.ResponseWriter, r *http.Request) {
	v := c.visit(w, r, fleet.RoleViewer, "look")
	if v == nil {
		return
	}
	p, at := c.pageNamed(r.FormValue("page")), r.FormValue("at")
	u, err := url.Parse(ownPath(at))
	if p == nil || p.live == nil || err != nil || p.role != "" && !v.May(p.role) {
		http.NotFound(w, r)
		return
	}
	select {
	case c.listeners <- struct{}{}:
		defer func() { <-c.listeners }()
	default:
		w.Header().Set("Retry-After", "15")
		http.Error(w, "too many pages are open at this moment", http.StatusServiceUnavailable)
		return
	}
	if !c.listening.enter(v.Actor.Name) {
		w.Header().Set("Retry-After", "15")
		http.Error(w, "too many pages of this user are open at this moment", http.StatusServiceUnavailable)
		return
	}
	defer c.listening.leave(v.Actor.Name)
	// The page's own request, so that its function finds path values and query.
	own := v.Clone(v.Context())
	own.URL, own.Form, own.PostForm = u, nil, nil
	v.Request, v.kept = own, &kept{time.Now, map[string]keptAnswer{}}
	setPathValues(own, p)
	w.Header().Set("Content-Type", "text/event-stream")
	c.follow(w, v, p)
}

func (c *console) pageNamed(name string) *page {
	for _, p := range c.pages {
		if p.name == name {
			return p
		}
	}
	return nil
}

// setPathValues fills in the wildcards of a page's path.
func setPathValues(r *http.Request, p *page) {
	have, want := splitPath(r.URL.Path), splitPath(p.path)
	for i, part := range want {
		if len(part) > 2 && part[0] == '{' && i < len(have) {
			r.SetPathValue(part[1:len(part)-1], have[i])
		}
	}
}

func (c *console) follow(w http.ResponseWriter, v *visit, p *page) {
	out := http.NewResponseController(w)
	tell := func(event string, data any) error {
		b, err := json.Marshal(data)
		if err != nil {
			return err
		}
		_ = out.SetWriteDeadline(time.Now().Add(liveStalled)) // a test's recorder has none
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, b); err != nil {
			return err
		}
		return out.Flush()
	}
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	known := seen{maphash.MakeSeed(), map[string]uint64{}, map[string]uint64{}}
	var said time.Time
	failing := false
	for {
		if actor, _, err := c.Operators.Person(v.Request); err != nil || actor.Role != v.Actor.Role || actor.Name != v.Actor.Name {
			_ = tell("ended", struct{}{})
			return
		}
		now, err := p.live(c, v)
		if refusal := (*fleet.Refusal)(nil); errors.As(err, &refusal) { // what the page is about is gone: who looks loads it again
			_ = tell("ended", struct{}{})
			return
		}
		if err != nil { // records fail for a moment: the page stays as it is until they do not, and says that it is old if that takes long
			if !failing && v.Context().Err() == nil {
				c.Log.Error("console cannot see what changes", "page", p.name, "err", err)
			}
			failing = true
			select {
			case <-tick.C:
				continue
			case <-v.Context().Done():
				return
			}
		}
		failing = false
		parts, data := known.changes(now)
		if len(parts) > 0 && tell("parts", parts) != nil || len(data) > 0 && tell("data", data) != nil {
			return
		}
		if len(parts)+len(data) > 0 {
			said = time.Now()
		} else if time.Since(said) > liveSilence {
			if tell("alive", struct{}{}) != nil {
				return
			}
			said = time.Now()
		}
		select {
		case <-tick.C:
		case <-v.Context().Done():
			return
		}
	}
}

// changes returns what is not as the listener has it, and notes that it has it now.
func (s *seen) changes(l *live) (parts []part, data map[string]json.RawMessage) {
	there := make(map[string]bool, len(l.parts))
	for _, p := range l.parts {
		there[p.ID] = true
		if sum := maphash.String(s.seed, p.HTML); s.parts[p.ID] != sum {
			s.parts[p.ID] = sum
			parts = append(parts, p)
		}
	}
	for id := range s.parts {
		if !there[id] {
			delete(s.parts, id)
			parts = append(parts, part{ID: id})
		}
	}
	data = map[string]json.RawMessage{}
	for key, value := range l.data {
		b, ready := value.(json.RawMessage)
		if !ready {
			var err error
			if b, err = json.Marshal(value); err != nil {
				panic(err) // plain types
			}
		}
		if sum := maphash.Bytes(s.seed, b); s.data[key] != sum {
			s.data[key] = sum
			data[key] = b
		}
	}
	for key := range s.data {
		if _, ok := l.data[key]; !ok {
			delete(s.data, key)
			data[key] = json.RawMessage("null")
		}
	}
	return parts, data
}

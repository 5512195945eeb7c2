package console

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

//go:embed templates
var templateFiles embed.FS

// look is the console in one language. Immutable.
type look struct {
	language  string
	texts     map[string]string // by the English one; nil is English itself
	whole     map[string]string // sentences, see say
	parts     []sentence
	templates map[string]*template.Template
}

// newLook parses all templates in one language: each with the layout, so that pages may define blocks of the same name.
func (c *console) newLook(language string) (*look, error) {
	l := &look{language: language, templates: map[string]*template.Template{}}
	var err error
	if l.texts, err = textsOf(language); err != nil {
		return nil, err
	}
	if l.whole, l.parts, err = sentencesOf(language); err != nil {
		return nil, err
	}
	layout, err := template.New("layout").Funcs(l.functions(c.assets)).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("parse the console's templates: %w", err)
	}
	l.templates["layout"] = layout
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "templates/"), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		t, err := template.Must(layout.Clone()).ParseFS(templateFiles, file)
		if err != nil {
			return nil, fmt.Errorf("parse the console's templates: %w", err)
		}
		l.templates[name] = t
	}
	return l, nil
}

func (l *look) execute(w io.Writer, template, block string, data any) error {
	t := l.templates[template]
	if t == nil {
		return fmt.Errorf("there is no template %s", template)
	}
	return t.ExecuteTemplate(w, block, data)
}

// functions are those of templates.
func (l *look) functions(a *assets) template.FuncMap {
	return template.FuncMap{
		"t":        l.t,
		"say":      l.say,
		"word":     l.word,
		"asset":    a.url,
		"bytes":    Bytes,
		"rate":     Rate,
		"duration": l.duration,
		"about":    l.about,
		"time":     l.time,
		"ago":      l.ago,
		"clock":    func(at time.Time) string { return at.Local().Format("15:04") },
		"percent":  percent,
		// post has a form sent by htmx, which puts the answer into the form's element with the class answer.
		"post": func(path string) template.HTMLAttr {
			p := template.HTMLEscapeString(path)
			return template.HTMLAttr(`method="post" action="` + p + `" hx-post="` + p + `" hx-target="find .answer" hx-swap="innerHTML"`)
		},
		// answer marks the element of a form that has the answer.
		"answer": func() template.HTMLAttr { return `class="answer" role="status" aria-live="polite"` },
		// dialog has a button open a dialog with what a path answers.
		"dialog": func(path string) template.HTMLAttr {
			p := template.HTMLEscapeString(path)
			return template.HTMLAttr(`type="button" hx-get="` + p + `" hx-target="#dialog" hx-swap="innerHTML"`)
		},
		// coded shows what a sentence has between back quotes, commands, as code.
		"coded": func(text string) template.HTML {
			var b strings.Builder
			for i, part := range strings.Split(text, "`") {
				if part = template.HTMLEscapeString(part); i%2 == 1 {
					part = "<code>" + part + "</code>"
				}
				b.WriteString(part)
			}
			return template.HTML(b.String())
		},
		"list": func(items ...any) []any { return items },
		// pack makes a map of names and values, for blocks that need several.
		"pack": func(pairs ...any) (map[string]any, error) {
			m := map[string]any{}
			if len(pairs)%2 != 0 {
				return nil, errors.New("pack needs names and values")
			}
			for i := 0; i < len(pairs); i += 2 {
				name, ok := pairs[i].(string)
				if !ok {
					return nil, errors.New("pack needs names and values")
				}
				m[name] = pairs[i+1]
			}
			return m, nil
		},
		"join":  strings.Join,
		"path":  url.PathEscape,
		"query": url.QueryEscape,
	}
}

// view is what a template gets.
type view struct {
	Visit *visit
	Data  any
	// The rest is for the layout.
	Title, Page, Message string
	Nav                  []navEntry
	Wide, Live           bool
	Scripts, Styles      []string // URLs
	Program              string
	Languages            []language
	Next                 string // the page itself
}

type navEntry struct {
	Path, Text string
	Here       bool
}

// render answers with a page that is not in the list: the login, an error.
func (c *console) render(v *visit, status int, name string, data any) {
	c.renderPage(v, status, nil, name, data)
}

func (c *console) renderPage(v *visit, status int, p *page, name string, data any) {
	w := view{Visit: v, Data: data, Page: name, Program: c.Program, Languages: languages, Next: v.URL.RequestURI()}
	if v.Method != http.MethodGet {
		w.Next = "/"
	}
	if name == "refused" {
		w.Title = v.t("Not done")
	} else if p == nil {
		w.Title = v.t("Log in")
	}
	w.Styles = append(w.Styles, c.assets.url("console.css"))
	w.Scripts = append(w.Scripts, c.assets.url("live.js"), c.assets.url("vendor/htmx.min.js"), c.assets.url("orders.js"))
	if p != nil {
		w.Wide, w.Live, w.Title = p.wide, p.live != nil, v.t(p.nav)
		if p.title != nil {
			w.Title = p.title(v, data)
		}
		if p.chart {
			w.Scripts = append(w.Scripts, c.assets.url("vendor/uPlot.iife.min.js"))
			w.Styles = append(w.Styles, c.assets.url("vendor/uPlot.min.css"))
		}
		if c.assets.has(p.name + ".css") {
			w.Styles = append(w.Styles, c.assets.url(p.name+".css"))
		}
		for _, name := range p.scripts {
			w.Scripts = append(w.Scripts, c.assets.url(name))
		}
		if c.assets.has(p.name + ".js") {
			w.Scripts = append(w.Scripts, c.assets.url(p.name+".js"))
		}
	}
	if v.Actor.Name != "" {
		w.Nav = c.navOf(v, p)
		w.Message = takeMessage(v)
	}
	var b bytes.Buffer
	if err := v.look.execute(&b, name, "page", w); err != nil {
		c.Log.Error("console cannot make a page", "path", v.URL.Path, "err", err)
		http.Error(v.w, fmt.Sprintf("the console cannot show this page: %v", err), http.StatusInternalServerError)
		return
	}
	send(v.w, status, b.Bytes())
}

// navOf returns the entries of the navigation that a person may see.
func (c *console) navOf(v *visit, here *page) (list []navEntry) {
	for _, p := range c.pages {
		if p.nav == "" || p.role != "" && !v.May(p.role) {
			continue
		}
		list = append(list, navEntry{p.path, v.t(p.nav), here != nil && (here == p || here.under == p.name)})
	}
	return list
}

// takeMessage returns the message that the last action left for this page, once.
func takeMessage(v *visit) string {
	kept, err := v.Cookie(messageCookie)
	if err != nil {
		return ""
	}
	http.SetCookie(v.w, cookie(messageCookie, "", -1))
	text, _ := url.QueryUnescape(kept.Value)
	return text
}

// languageOf returns the language that a browser's person chose, else the first of its own that the console has.
func languageOf(r *http.Request) string {
	known := func(code string) bool {
		return slices.ContainsFunc(languages, func(l language) bool { return l.Code == code })
	}
	if chosen, err := r.Cookie(languageCookie); err == nil && known(chosen.Value) {
		return chosen.Value
	}
	for _, wanted := range strings.Split(r.Header.Get("Accept-Language"), ",") { // browsers list the one they like best first
		code, _, _ := strings.Cut(strings.TrimSpace(wanted), ";")
		code, _, _ = strings.Cut(strings.ToLower(code), "-")
		if known(code) {
			return code
		}
	}
	return languages[0].Code
}

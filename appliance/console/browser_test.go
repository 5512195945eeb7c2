package console

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// browser is the Chromium of all tests, started once. Its profile is new, and it asks nobody but the tests' servers.
var browser struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if browser.stop != nil {
		browser.stop()
	}
	os.Exit(code)
}

func startBrowser(t testing.TB) context.Context {
	t.Helper()
	browser.once.Do(func() {
		profile, err := os.MkdirTemp("", "console-chromium-")
		if err != nil {
			browser.err = err
			return
		}
		options := []chromedp.ExecAllocatorOption{chromedp.Headless, chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU,
			chromedp.UserDataDir(profile), chromedp.IgnoreCertErrors}
		for _, name := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-default-apps",
			"disable-extensions", "disable-dev-shm-usage", "disable-breakpad", "disable-client-side-phishing-detection", "disable-domain-reliability",
			"disable-background-timer-throttling", "disable-backgrounding-occluded-windows", "disable-renderer-backgrounding", "metrics-recording-only", "no-pings"} {
			options = append(options, chromedp.Flag(name, true))
		}
		options = append(options, chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter,InterestFeedContentSuggestions,CertificateTransparencyComponentUpdater"),
			chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"), chromedp.Flag("password-store", "basic"), chromedp.Flag("lang", "en-US"))
		allocated, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, stop := chromedp.NewContext(allocated)
		browser.ctx, browser.stop = ctx, func() { stop(); stopAllocator(); os.RemoveAll(profile) }
		browser.err = chromedp.Do(ctx)
	})
	if browser.err != nil {
		t.Fatalf("Chromium does not start; `make setup` installs it: %v", browser.err)
	}
	return browser.ctx
}

// how says how somebody looks at the console.
type how struct {
	Role     fleet.Role // empty is nobody who logged in
	Width    int        // pixels; 0 is 1280
	Theme    string     // "light" (also if empty), "dark": what the system says
	Language string     // empty is "en"
}

func (h how) String() string {
	return fmt.Sprintf("%d-%s-%s", h.Width, h.Theme, h.Language)
}

// tab is a page in the browser. A test fails if its page writes errors to the browser's console.
type tab struct {
	t   testing.TB
	w   *world
	ctx context.Context
	how how

	mu       sync.Mutex
	messages []string
	// expected are parts of messages that a test means to cause: "status of 409".
	expected []string
}

// open loads a page of the console.
func (w *world) open(t testing.TB, h how, path string) *tab {
	t.Helper()
	if h.Width == 0 {
		h.Width = 1280
	}
	if h.Theme == "" {
		h.Theme = "light"
	}
	if h.Language == "" {
		h.Language = "en"
	}
	var stay *fleet.Stay
	if h.Role != fleet.RoleNone {
		stay = w.as(h.Role)
	}
	ctx, stop := chromedp.NewContext(startBrowser(t), chromedp.WithNewBrowserContext())
	ctx, stopTime := context.WithTimeout(ctx, 2*time.Minute)
	b := &tab{t: t, w: w, ctx: ctx, how: h}
	messages := chromedp.Console(ctx)
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.IsException() {
				b.mu.Lock()
				b.messages = append(b.messages, fmt.Sprintf("%s: %s (%s:%d)", m.Type, m.Text, m.URL, m.Line))
				b.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		stopTime()
		stop()
		<-listened
		b.quiet()
	})
	height := 900
	if h.Width < 700 {
		height = 844
	}
	b.call(chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: int64(h.Width), Height: int64(height), DeviceScaleFactor: 1, Mobile: h.Width < 700}))
	b.call(chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: h.Theme}}}))
	b.cookie(languageCookie, h.Language)
	if stay != nil {
		b.cookie(api.CookieName, stay.Cookie)
	}
	b.load(path)
	return b
}

func (b *tab) call(_ any, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) cookie(name, value string) {
	b.t.Helper()
	yes := true
	b.call(chromedp.Call(b.ctx, network.SetCookie, network.SetCookieParams{Name: name, Value: value, URL: b.w.url + "/", Path: "/", Secure: &yes, HTTPOnly: &yes, SameSite: network.CookieSameSiteStrict}))
}

// do performs actions of chromedp.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%v\n%s", err, b.seen())
	}
}

// load goes to a page and waits until it is there.
func (b *tab) load(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.w.url + path))
	b.until(`document.querySelector("main")`)
}

// eval returns the value of an expression.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression holds, also on the page that comes after this one.
func (b *tab) until(expression string) {
	b.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		holds, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && holds {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			b.t.Fatalf("does not become true: %s: %v\n%s", expression, err, b.seen())
		}
	}
}

// says waits until an element has a text.
func (b *tab) says(selector, text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	b.until(fmt.Sprintf("[...document.querySelectorAll(%q)].some(e => e.innerText.includes(%s))", selector, quoted))
}

// seen is the beginning of the page's text, for messages.
func (b *tab) seen() string {
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.pathname + ': ' + document.body.innerText.slice(0, 2000)"))
	if err != nil {
		return err.Error()
	}
	return text
}

// expect says that the page will write a message with this part to the browser's console.
func (b *tab) expect(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, part)
}

// quiet fails the test if the page wrote errors or warnings to the browser's console.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.messages {
		known := false
		for _, part := range b.expected {
			known = known || strings.Contains(m, part)
		}
		if !known {
			b.t.Errorf("the browser's console: %s", m)
		}
	}
	b.messages = nil
}

// axe fails the test if axe-core finds serious or critical violations on the page.
func (b *tab) axe() {
	b.t.Helper()
	script, err := os.ReadFile("npm/node_modules/axe-core/axe.min.js")
	if err != nil {
		b.t.Fatalf("`make console` fetches axe-core: %v", err)
	}
	eval[bool](b, string(script)+"; true")
	type violation struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML, FailureSummary string }
	}
	for _, v := range eval[[]violation](b, `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map(n => ({html: n.html, failureSummary: n.failureSummary}))})))`) {
		if v.Impact != "serious" && v.Impact != "critical" {
			continue
		}
		for _, n := range v.Nodes {
			b.t.Errorf("axe: %s (%s): %s\n%s\n%s", v.ID, v.Impact, v.Help, n.HTML, n.FailureSummary)
		}
	}
}

// fits fails the test if the page is wider than the screen.
func (b *tab) fits() {
	b.t.Helper()
	wide := eval[[]string](b, `(() => { const w = document.documentElement.clientWidth; if (document.documentElement.scrollWidth <= w) return []; return [...document.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > w + 1).slice(0, 5).map(e => e.outerHTML.slice(0, 160)); })()`)
	if len(wide) > 0 {
		b.t.Errorf("the page is wider than %d pixels: %s", b.how.Width, strings.Join(wide, "\n"))
	}
}

// picture writes a picture of the whole page, if $SEEDBED_PICTURES names a directory.
func (b *tab) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("SEEDBED_PICTURES")
	if dir == "" {
		return
	}
	// As high as the page, so that what sticks to an edge of the screen is at the page's.
	for range 2 { // rooms that were out of sight have their true height only when they are in it
		height := max(900, eval[int64](b, "document.documentElement.scrollHeight"))
		b.call(chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: int64(b.how.Width), Height: height, DeviceScaleFactor: 1, Mobile: b.how.Width < 700}))
		eval[bool](b, "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))") // what came into sight is drawn
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

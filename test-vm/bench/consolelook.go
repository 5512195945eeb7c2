package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/chromedp/cdproto/emulation"
	pagenet "github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"

	"seedbed/appliance/api"
)

// lookArg makes this program the process that has a browser look at the console.
const lookArg = "-look"

// lookOrder says where and how long.
type lookOrder struct {
	URL, User, Password string
	For                 time.Duration
}

// looked is what was seen.
type looked struct {
	Began, Ended time.Time
	Views        []lookedView
	// Bytes and Messages are those of the events a second, as another who looks receives them.
	Bytes, Messages float64
}

// lookedView is one way to look: the first is that of a person, the second has all machines in view.
type lookedView struct {
	What string
	// Ticks are what the page's main thread worked on each tick with changes, in seconds; Script, Layout and Style of that on average.
	Ticks                 []float64
	Script, Layout, Style float64
}

func lookMain() {
	var o lookOrder
	err := json.NewDecoder(os.Stdin).Decode(&o)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*o.For+90*time.Second)
		defer cancel()
		var l *looked
		if l, err = lookAt(ctx, o); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(l)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: browser:", err)
		os.Exit(1)
	}
}

func lookAt(ctx context.Context, o lookOrder) (*looked, error) {
	cookie, err := logIn(ctx, o)
	if err != nil {
		return nil, err
	}
	profile, err := os.MkdirTemp("", "seedbed-bench-chromium-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(profile)
	options := []chromedp.ExecAllocatorOption{chromedp.Headless, chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU,
		chromedp.UserDataDir(profile), chromedp.IgnoreCertErrors}
	for _, name := range []string{"disable-background-networking", "disable-component-update", "disable-sync", "disable-extensions", "disable-dev-shm-usage",
		"disable-background-timer-throttling", "disable-backgrounding-occluded-windows", "disable-renderer-backgrounding", "no-pings"} {
		options = append(options, chromedp.Flag(name, true))
	}
	allocated, stopAllocator := chromedp.NewExecAllocator(ctx, options...)
	defer stopAllocator()
	tab, stop := chromedp.NewContext(allocated)
	defer stop()
	if err := chromedp.Do(tab); err != nil {
		return nil, fmt.Errorf("start Chromium; `make setup` installs it: %w", err)
	}
	yes := true
	if _, err := chromedp.Call(tab, pagenet.SetCookie, pagenet.SetCookieParams{Name: api.CookieName, Value: cookie, URL: o.URL + "/", Path: "/", Secure: &yes, HTTPOnly: &yes}); err != nil {
		return nil, err
	}
	if _, err := chromedp.Call(tab, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}); err != nil {
		return nil, err
	}
	l := &looked{}
	stream := make(chan error, 1)
	streaming, end := context.WithCancel(ctx)
	defer end()
	go func() { stream <- l.listen(streaming, o, cookie) }()
	for i, v := range []struct {
		what   string
		height int64
		long   time.Duration
	}{{"as a person sees it", 1080, o.For}, {"all machines in view", 12000, o.For / 3}} {
		if _, err := chromedp.Call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 1920, Height: v.height, DeviceScaleFactor: 1}); err != nil {
			return nil, err
		}
		if err := chromedp.Do(tab, chromedp.Navigate(o.URL+"/rooms"), chromedp.WaitReady("main")); err != nil {
			return nil, err
		}
		if i == 0 {
			l.Began = time.Now()
		}
		view, err := ticks(tab, v.what, v.long)
		if err != nil {
			return nil, err
		}
		l.Views = append(l.Views, *view)
		if i == 0 {
			l.Ended = time.Now()
			end()
			if err := <-stream; err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// nextTick is done when the changes of one tick were drawn. It counts the messages of changes meanwhile.
const nextTick = `new Promise((done) => {
  const drawn = () => requestAnimationFrame(() => setTimeout(() => done(true), 0));
  document.addEventListener("live:data", drawn, { once: true });
  setTimeout(() => done(false), 5000);
})`

// ticks measures what each tick takes: the CPU time of all tasks of the page's main thread, script, style, layout and paint among
// them. Time in which other programs had the processor does not count.
func ticks(tab context.Context, what string, long time.Duration) (*lookedView, error) {
	v := &lookedView{What: what}
	await := func() (bool, error) {
		return chromedp.Run(tab, chromedp.Evaluate[bool](nextTick, chromedp.EvalAwaitPromise))
	}
	for range 5 { // the first ones fill the page
		if _, err := await(); err != nil {
			return nil, err
		}
	}
	before, err := metricsOf(tab)
	if err != nil {
		return nil, err
	}
	first := before
	for end := time.Now().Add(long); time.Now().Before(end); {
		seen, err := await()
		if err != nil {
			return nil, err
		}
		now, err := metricsOf(tab)
		if err != nil {
			return nil, err
		}
		if seen {
			v.Ticks = append(v.Ticks, now["TaskDuration"]-before["TaskDuration"])
		}
		before = now
	}
	if n := float64(len(v.Ticks)); n > 0 {
		v.Script, v.Layout, v.Style = (before["ScriptDuration"]-first["ScriptDuration"])/n, (before["LayoutDuration"]-first["LayoutDuration"])/n,
			(before["RecalcStyleDuration"]-first["RecalcStyleDuration"])/n
	}
	return v, nil
}

// metricsOf returns the page's counters, times in seconds.
func metricsOf(tab context.Context) (map[string]float64, error) {
	r, err := chromedp.Call(tab, performance.GetMetrics, struct{}{})
	if err != nil {
		return nil, err
	}
	m := map[string]float64{}
	for _, one := range r.Metrics {
		m[one.Name] = one.Value
	}
	return m, nil
}

// browserless speaks HTTP/1.1 as a program does. Certificates are those of a site that nobody knows here.
func browserless() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// logIn returns the value of the cookie of a login.
func logIn(ctx context.Context, o lookOrder) (string, error) {
	body, err := json.Marshal(api.Login{Name: o.User, Password: o.Password})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL+"/api/v1/login", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := browserless().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == api.CookieName {
			return c.Value, nil
		}
	}
	return "", fmt.Errorf("the login got no cookie: %s", resp.Status)
}

// listen counts what one who looks receives until ctx is done, but for the beginning, which has all machines.
func (l *looked) listen(ctx context.Context, o lookOrder, cookie string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL+"/live?page=rooms&at=/rooms", nil)
	if err != nil {
		return err
	}
	req.AddCookie(&http.Cookie{Name: api.CookieName, Value: cookie})
	resp, err := browserless().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("the live part of the rooms: " + resp.Status)
	}
	lines := bufio.NewReaderSize(resp.Body, 1<<20)
	opened, began, bytes, messages := time.Now(), time.Time{}, 0, 0
	for {
		line, err := lines.ReadString('\n')
		switch {
		case ctx.Err() != nil:
			if seconds := time.Since(began).Seconds(); !began.IsZero() {
				l.Bytes, l.Messages = float64(bytes)/seconds, float64(messages)/seconds
			}
			return nil
		case err != nil:
			return fmt.Errorf("the live part of the rooms ended: %w", err)
		case time.Since(opened) < fillTime:
			continue
		case began.IsZero():
			began = time.Now()
		}
		bytes += len(line)
		if strings.HasPrefix(line, "data:") {
			messages++
		}
	}
}

// fillTime is in which all machines have come, and after which what comes are changes.
const fillTime = 3 * time.Second

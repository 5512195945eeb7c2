package fleet

import (
	"fmt"
	"math"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time that is written as Go does: "90s", "1h30m0s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no length of time; one is written 90s or 1h30m", b)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Thresholds are what machines and the site are judged by: beyond them an alert is raised.
type Thresholds struct {
	// A machine is slow that was below SlowRate (bytes a second), or below SlowShare of the median of its room, for SlowFor.
	SlowRate  float64  `json:"slow_rate"`
	SlowShare float64  `json:"slow_share"`
	SlowFor   Duration `json:"slow_for"`
	// Silence is after how long without a report a machine at work is silent.
	Silence Duration `json:"silence"`
	// ErrorShare is the share of the tiles of the last 60 s that may fail their hash, of at least ErrorTiles.
	ErrorShare float64 `json:"error_share"`
	ErrorTiles int64   `json:"error_tiles"`
	// FreeShare and FreeBytes are how much of the repository's file system is to be free; the greater one counts.
	FreeShare float64 `json:"free_share"`
	FreeBytes int64   `json:"free_bytes"`
	// CertificateDays is how long before its end a certificate is told of.
	CertificateDays int `json:"certificate_days"`
	// CoolDown is how long after a message about something the next one about the same waits, however often it comes and goes.
	CoolDown Duration `json:"cool_down"`
	// Mute are the rules of which no message is sent; their alerts are raised all the same.
	Mute []AlertRule `json:"mute,omitempty"`
}

// Bounds of thresholds.
const (
	maxRate     = 1e12 // bytes a second
	maxLapse    = 24 * time.Hour
	minSlowFor  = 5 * time.Second  // rates are averages over 5 s
	maxSlowFor  = 10 * time.Minute // what machines report in that time is held in memory: 130 B a second and machine
	minSilence  = 5 * time.Second  // a report is due each second
	maxCoolDown = 30 * 24 * time.Hour
)

func (t *Thresholds) check(w *wrongs) {
	w.in(Range{Least: 0, Most: maxRate, Above: true}, t.SlowRate, "slow_rate", "a machine is slow below a rate of more than 0 bytes a second, not %g; 10000000 is 10 MB/s", t.SlowRate)
	w.in(Range{Least: 0, Most: 1, Above: true}, t.SlowShare, "slow_share", "the share of the room's median is more than 0 and at most 1, not %g; 0.25 is a quarter", t.SlowShare)
	within(w, t.SlowFor, minSlowFor, maxSlowFor, "slow_for", "a machine has been slow for")
	within(w, t.Silence, minSilence, maxLapse, "silence", "a machine is silent after")
	w.in(Range{Least: 0, Most: 1, Above: true}, t.ErrorShare, "error_share", "the share of wrong tiles is more than 0 and at most 1, not %g; 0.05 is one of twenty", t.ErrorShare)
	w.in(Range{Least: 1, Most: math.Inf(1)}, float64(t.ErrorTiles), "error_tiles", "wrong tiles are counted of at least 1 tile, not %d", t.ErrorTiles)
	w.in(Range{Least: 0, Most: 1, Below: true}, t.FreeShare, "free_share", "the share of the repository's room that is to be free is a number from 0 to below 1, not %g", t.FreeShare)
	w.in(Range{Least: 0, Most: math.Inf(1)}, float64(t.FreeBytes), "free_bytes", "the room that is to be free is a number of bytes from 0, not %d", t.FreeBytes)
	w.in(Range{Least: 0, Most: 365}, float64(t.CertificateDays), "certificate_days", "a certificate is told of 0 to 365 days before its end, not %d", t.CertificateDays)
	within(w, t.CoolDown, 0, maxCoolDown, "cool_down", "the next message about the same waits for")
	for _, r := range t.Mute {
		w.unless(slices.Contains(AlertRules, r), "mute", "there is no alert %q; there are %s", r, joinRules(AlertRules))
	}
}

func within(w *wrongs, d Duration, least, most time.Duration, field, what string) {
	w.in(Range{Least: least.Seconds(), Most: most.Seconds()}, time.Duration(d).Seconds(), field, "%s %v to %v, not %v", what, least, most, d)
}

func joinRules(list []AlertRule) string {
	var words []string
	for _, r := range list {
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}

// MailTLS says how the connection to the mail server is encrypted.
type MailTLS string

const (
	MailSTARTTLS MailTLS = "starttls" // by the command STARTTLS (RFC 3207); a server without it gets nothing
	MailImplicit MailTLS = "tls"      // from the first byte on (RFC 8314 §3.3)
	MailPlain    MailTLS = "none"
)

// Channels are where messages about alerts go.
type Channels struct {
	// MailServer takes mail: "mail.example:587"; empty sends none.
	MailServer string  `json:"mail_server,omitempty"`
	MailTLS    MailTLS `json:"mail_tls"`
	// MailUser is whose password the appliance has in a file; empty is a server that asks for none.
	MailUser string   `json:"mail_user,omitempty"`
	MailFrom string   `json:"mail_from,omitempty"` // an address
	MailTo   []string `json:"mail_to,omitempty"`   // addresses
	// Webhook is the URL that messages are posted to as JSON; empty is none. Its path is a secret of many services.
	Webhook string `json:"webhook,omitempty"`
}

// maxMailTo bounds who gets mail: a list of a mail server has room for more.
const maxMailTo = 20

// check says what is wrong with the channels.
func (c *Channels) check(w *wrongs) {
	w.unless(slices.Contains([]MailTLS{MailSTARTTLS, MailImplicit, MailPlain}, c.MailTLS), "mail_tls", "the mail server is spoken to with starttls, tls or none, not %q", c.MailTLS)
	w.unless(len(c.MailTo) <= maxMailTo, "mail_to", "mail goes to %d addresses at most, not %d; use a list of the mail server", maxMailTo, len(c.MailTo))
	w.unless(len(c.MailUser) <= 256 && !hasControl(c.MailUser), "mail_user", "the mail user has at most 256 bytes and no control characters")
	w.unless(c.MailUser == "" || c.MailTLS != MailPlain, "mail_tls", "a password is not sent in the clear: with a mail user the mail server is spoken to with starttls or tls")
	if c.MailFrom != "" {
		w.unless(isAddress(c.MailFrom), "mail_from", "%q is no mail address; one is written seedbed@example.org", c.MailFrom)
	}
	for _, to := range c.MailTo {
		w.unless(isAddress(to), "mail_to", "%q is no mail address; one is written anna@example.org", to)
	}
	if c.MailServer != "" {
		w.unless(isHostPort(c.MailServer), "mail_server", "%q is no server with its port; one is written mail.example.org:587", c.MailServer)
		w.unless(c.MailFrom != "", "mail_from", "say from which address mail comes, as seedbed@example.org")
		w.unless(len(c.MailTo) > 0, "mail_to", "say to which addresses mail goes, as anna@example.org")
	}
	if c.Webhook != "" {
		w.unless(isHookURL(c.Webhook), "webhook", "the webhook is no URL that begins with https:// or http:// and has neither user nor password; the secret that signs messages is in the file of --webhook-secret-file")
	}
}

func isAddress(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && len(s) <= 254 && !hasControl(s)
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	number, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && host != "" && number > 0 && len(s) <= 260 && !strings.ContainsAny(host, " /\r\n\t")
}

func isHookURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil && u.Fragment == "" && len(s) <= 2048 && !hasControl(s)
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// hideURL returns scheme and host of a URL alone: the rest may be a secret.
func hideURL(s string) string {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return ""
	case err != nil:
		return "xxxxx"
	case u.Path == "" && u.RawQuery == "":
		return s
	}
	return u.Scheme + "://" + u.Host + "/xxxxx"
}

// WebhookHost is the host of the webhook, "" without one: what may be said of it.
func (c *Channels) WebhookHost() string {
	u, err := url.Parse(c.Webhook)
	if err != nil {
		return ""
	}
	return u.Host
}

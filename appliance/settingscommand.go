package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
)

func settingsCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "settings", Short: "Show and change what is set for the whole site"}
	cmd.AddCommand(settingsShow(o), settingsSet(o))
	return cmd
}

func settingsShow(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "Show what is set", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		s, err := c.Settings(cmd.Context())
		if err != nil {
			return err
		}
		return tellSettings(cmd, s, *asJSON)
	})
	return cmd
}

func tellSettings(cmd *cobra.Command, s *fleet.Settings, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), s)
	}
	limit := "no limit"
	if s.Limit > 0 {
		limit = fmt.Sprint(s.Limit)
	}
	server := "none"
	if s.MailServer != "" {
		server = fmt.Sprintf("%s (%s), user %s", s.MailServer, s.MailTLS, or(s.MailUser, "none"))
	}
	var muted []string
	for _, r := range s.Mute {
		muted = append(muted, string(r))
	}
	for _, row := range [][2]string{
		{"machines at work at once", limit}, {"time zone of windows", or(s.TimeZone, "that of the appliance's host")}, {"retries of a failed job", fmt.Sprint(s.Retries)},
		{"events are kept", keptDays(s.KeepEvents).text()}, {"jobs are kept", keptDays(s.KeepJobs).text()},
		{"a machine is slow", fmt.Sprintf("below %.6g MB/s or %.3g %% of its room's median, for %v", s.SlowRate/1e6, 100*s.SlowShare, s.SlowFor)},
		{"a machine is silent", fmt.Sprintf("after %v without a report", s.Silence)},
		{"wrong tiles", fmt.Sprintf("more than %.3g %% of at least %d in 60 s", 100*s.ErrorShare, s.ErrorTiles)},
		{"room that is to be free", fmt.Sprintf("%.3g %% of the repository's file system, and %.6g GB", 100*s.FreeShare, float64(s.FreeBytes)/1e9)},
		{"certificates are told of", fmt.Sprintf("%d days before their end", s.CertificateDays)},
		{"next message of the same", fmt.Sprintf("after %v", s.CoolDown)}, {"muted alerts", or(strings.Join(muted, ", "), "none")},
		{"mail server", server}, {"mail from", or(s.MailFrom, "none")}, {"mail to", or(strings.Join(s.MailTo, ", "), "none")}, {"webhook", or(s.Webhook, "none")},
	} {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-25s %s\n", row[0], plain(row[1])); err != nil {
			return err
		}
	}
	return nil
}

// settingsFlags are what settings set may be told.
type settingsFlags struct {
	limit, retries, certificateDays     int
	zone, tls, server, user, from, hook string
	slowRate                            rate
	freeBytes                           string
	slowShare, errorShare, freeShare    float64
	errorTiles                          int64
	slowFor, silence, coolDown          time.Duration
	mute, to                            []string
	keepEvents, keepJobs                keptDays
}

func (n *settingsFlags) flags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.IntVar(&n.limit, "limit", 0, "how many machines of the site are at work at once; 0 is no limit")
	f.StringVar(&n.zone, "time-zone", "", "the time `ZONE` of windows that name none, as in Europe/Berlin; \"\" is that of the appliance's host")
	f.IntVar(&n.retries, "retries", 0, "how often a job that failed of the network is tried again by itself")
	f.Var(&n.keepEvents, "keep-events", "how long events are kept: `DAYS` as in 365d, or forever")
	f.Var(&n.keepJobs, "keep-jobs", "how long jobs that have ended are kept, with their rows in journals and their receipts: `DAYS` as in 365d, or forever. Those of what a disk holds now stay")
	f.Var(&n.slowRate, "slow-rate", "a machine below this `RATE` is slow: 10M is 10 MB/s")
	f.Float64Var(&n.slowShare, "slow-share", 0, "a machine below this share of its room's median is slow: 0.25")
	f.DurationVar(&n.slowFor, "slow-for", 0, "for how long it has to be")
	f.DurationVar(&n.silence, "silence", 0, "after how long without a report a machine at work is silent")
	f.Float64Var(&n.errorShare, "error-share", 0, "the share of tiles that may fail their hash in 60 s: 0.05")
	f.Int64Var(&n.errorTiles, "error-tiles", 0, "of how many tiles at least that is judged")
	f.Float64Var(&n.freeShare, "free-share", 0, "the share of the repository's file system that is to be free: 0.05")
	f.StringVar(&n.freeBytes, "free-bytes", "", "which `SIZE` of it is to be free: 10GB")
	f.IntVar(&n.certificateDays, "certificate-days", 0, "how many days before its end a certificate is told of")
	f.DurationVar(&n.coolDown, "cool-down", 0, "how long the next message about the same waits")
	f.StringSliceVar(&n.mute, "mute", nil, "`ALERTS` of which no message is sent: "+ruleWords()+"; \"\" is none")
	f.StringVar(&n.server, "mail-server", "", "`HOST:PORT` of the mail server; \"\" sends no mail")
	f.StringVar(&n.tls, "mail-tls", "", "how it is spoken to: starttls, tls (from the first byte on) or none")
	f.StringVar(&n.user, "mail-user", "", "`USER` there, whose password is in the file of `serve --mail-password-file`; \"\" is none")
	f.StringVar(&n.from, "mail-from", "", "`ADDRESS` that mail comes from")
	f.StringSliceVar(&n.to, "mail-to", nil, "`ADDRESSES` that mail goes to")
	f.StringVar(&n.hook, "webhook", "", "`URL` that messages are posted to as JSON; \"\" posts none")
}

func ruleWords() string {
	var words []string
	for _, r := range fleet.AlertRules {
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}

// order is what the flags that were given ask for.
func (n *settingsFlags) order(f *pflag.FlagSet) (o fleet.SettingsOrder, err error) {
	var freeBytes int64
	if f.Changed("free-bytes") && n.freeBytes != "0" {
		if freeBytes, err = parseSize(n.freeBytes); err != nil {
			return o, usageError{fmt.Errorf("--free-bytes: %w", err)}
		}
	}
	slowRate, tls := float64(n.slowRate), fleet.MailTLS(n.tls)
	slowFor, silence, coolDown := fleet.Duration(n.slowFor), fleet.Duration(n.silence), fleet.Duration(n.coolDown)
	mute, to := []fleet.AlertRule{}, []string{}
	for _, word := range n.mute {
		if word = strings.TrimSpace(word); word != "" {
			mute = append(mute, fleet.AlertRule(word))
		}
	}
	for _, word := range n.to {
		if word = strings.TrimSpace(word); word != "" {
			to = append(to, word)
		}
	}
	given(f, "limit", &o.Limit, &n.limit)
	given(f, "time-zone", &o.TimeZone, &n.zone)
	given(f, "retries", &o.Retries, &n.retries)
	given(f, "keep-events", &o.KeepEvents, (*int)(&n.keepEvents))
	given(f, "keep-jobs", &o.KeepJobs, (*int)(&n.keepJobs))
	given(f, "slow-rate", &o.SlowRate, &slowRate)
	given(f, "slow-share", &o.SlowShare, &n.slowShare)
	given(f, "slow-for", &o.SlowFor, &slowFor)
	given(f, "silence", &o.Silence, &silence)
	given(f, "error-share", &o.ErrorShare, &n.errorShare)
	given(f, "error-tiles", &o.ErrorTiles, &n.errorTiles)
	given(f, "free-share", &o.FreeShare, &n.freeShare)
	given(f, "free-bytes", &o.FreeBytes, &freeBytes)
	given(f, "certificate-days", &o.CertificateDays, &n.certificateDays)
	given(f, "cool-down", &o.CoolDown, &coolDown)
	given(f, "mute", &o.Mute, &mute)
	given(f, "mail-server", &o.MailServer, &n.server)
	given(f, "mail-tls", &o.MailTLS, &tls)
	given(f, "mail-user", &o.MailUser, &n.user)
	given(f, "mail-from", &o.MailFrom, &n.from)
	given(f, "mail-to", &o.MailTo, &to)
	given(f, "webhook", &o.Webhook, &n.hook)
	return o, nil
}

// given sets a field of an order to the value of a flag, if that was given.
func given[T any](f *pflag.FlagSet, name string, field **T, value *T) {
	if f.Changed(name) {
		*field = value
	}
}

func settingsSet(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "set", Short: "Change what is set", Args: cobra.NoArgs,
		Long: "Change what is set for the whole site; what is not named stays. `seedbed alert test` sends a message to where alerts go."}
	var n settingsFlags
	n.flags(cmd.Flags())
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		order, err := n.order(cmd.Flags())
		if err != nil {
			return err
		}
		if order == (fleet.SettingsOrder{}) {
			return usageError{errors.New("say what to set, as in --limit 30; `seedbed settings set --help` lists all")}
		}
		s, err := c.EditSettings(cmd.Context(), 0, order)
		if err != nil {
			return err
		}
		return tellSettings(cmd, s, *asJSON)
	})
	return cmd
}

package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"seedbed/appliance/fleet"
)

// send sends what is due until ctx is done, one message after the other.
func (a *Alerts) send(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !a.config.Fleet.InOffice() {
			continue
		}
		for _, m := range a.config.Fleet.Messages() {
			if m.Waiting() && !a.config.Now().Before(m.Next) && ctx.Err() == nil {
				if err := a.try(ctx, m.ID); err != nil && ctx.Err() == nil {
					a.log.Error("what became of a message could not be recorded", "message", m.ID, "err", err)
				}
			}
		}
	}
}

// try sends one message and enters what came of it.
func (a *Alerts) try(ctx context.Context, id string) error {
	m, err := a.config.Fleet.TakeMessage(ctx, id)
	if err != nil || m == nil {
		return err
	}
	settings := a.config.Fleet.Settings()
	_, sendErr := a.sendOne(ctx, settings.Channels, m)
	if sendErr != nil && ctx.Err() != nil {
		return ctx.Err() // it is tried again
	}
	why := ""
	if sendErr != nil {
		why = sendErr.Error()
	}
	// What a server has taken is entered although the appliance stops: it is not sent again.
	return a.config.Fleet.MessageTried(context.WithoutCancel(ctx), id, why)
}

// sendOne sends a message on its channel.
func (a *Alerts) sendOne(ctx context.Context, c fleet.Channels, m *fleet.Message) (string, error) {
	switch {
	case m.Channel == fleet.ChannelMail && c.MailServer != "":
		return Mail(ctx, c, a.config.Secrets, m)
	case m.Channel == fleet.ChannelWebhook && c.Webhook != "":
		return Webhook(ctx, c, a.config.Secrets, m)
	}
	return "", errors.New("nothing is set any more by which it could go; set a mail server or a webhook (`seedbed settings set`)")
}

// Tested is what became of a test message on one channel.
type Tested struct {
	Channel fleet.Channel `json:"channel"`
	Taken   bool          `json:"taken"`
	Text    string        `json:"text" doc:"What the server said, or why it was not reached: a sentence."`
}

// TestMessages sends a test message on each channel that is set, now and once. An error is that nothing is set, or who asks may not.
func (a *Alerts) TestMessages(ctx context.Context) ([]Tested, error) {
	if err := fleet.MayTestMessages(ctx); err != nil {
		return nil, err
	}
	c := a.config.Fleet.Settings().Channels
	text := "This is a test. Alerts of this site come here.\n"
	if a.config.Console != "" {
		text += "\nAll alerts: " + a.config.Console + "/alerts\n"
	}
	now := a.config.Now().UTC()
	payload, err := json.Marshal(Payload{Text: text, At: now, Console: a.config.Console, Raised: []fleet.Alert{}, Recovered: []fleet.Alert{}, Test: true})
	if err != nil {
		return nil, err
	}
	var list []Tested
	for _, channel := range []fleet.Channel{fleet.ChannelMail, fleet.ChannelWebhook} {
		if channel == fleet.ChannelMail && c.MailServer == "" || channel == fleet.ChannelWebhook && c.Webhook == "" {
			continue
		}
		m := &fleet.Message{ID: fmt.Sprintf("test-%d", now.UnixNano()), Channel: channel, Created: now, Subject: "Seedbed: a test", Text: text, Payload: payload}
		said, err := a.sendOne(ctx, c, m)
		if err != nil {
			said = err.Error()
		}
		list = append(list, Tested{Channel: channel, Taken: err == nil, Text: said})
	}
	if list == nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "there is nowhere to send a message to: set a mail server (`seedbed settings set --mail-server HOST:PORT " +
			"--mail-from ADDRESS --mail-to ADDRESS`) or a webhook (`--webhook URL`)"}
	}
	var sentences []string
	for _, t := range list {
		sentences = append(sentences, t.Text)
	}
	return list, a.config.Fleet.MessagesTested(ctx, "a test message was sent: "+strings.Join(sentences, "; "))
}

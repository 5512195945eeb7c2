package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"
)

// Channel is a way by which messages go.
type Channel string

const (
	ChannelMail    Channel = "mail"
	ChannelWebhook Channel = "webhook"
)

// Message is what people are told of alerts, on one channel. It is kept until it was sent, and for a while after that.
type Message struct {
	ID      string    `json:"id"`
	Version int64     `json:"version"`
	Channel Channel   `json:"channel"`
	Created time.Time `json:"created"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	// Payload is what a webhook is sent; nil for mail.
	Payload json.RawMessage `json:"payload,omitempty"`
	// Attempts counts how often it was tried, Next is when it is tried next, Error why the last attempt failed: a sentence.
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next,omitzero"`
	Error    string    `json:"error,omitempty"`
	// Sent is when it was taken, GivenUp when it was tried for so long that nobody waits for it any more; zero is not.
	Sent    time.Time `json:"sent,omitzero"`
	GivenUp time.Time `json:"given_up,omitzero"`
}

// Waiting reports whether the message is still to be sent.
func (m *Message) Waiting() bool { return m.Sent.IsZero() && m.GivenUp.IsZero() }

func (m *Message) Ref() Key     { return Key{KindMessage, m.ID} }
func (m *Message) Row() *int64  { return &m.Version }
func (m *Message) Shelf() Shelf { return Shelf{} }
func (m *Message) copy() Record { own := *m; return &own }

// maxMessages is how many messages that were sent are kept, at most for jobHistory. messageLife is how long one is tried.
const (
	maxMessages = 500
	messageLife = 7 * 24 * time.Hour
)

// Messages returns the messages: those that wait first, each part with the latest first.
func (f *Fleet) Messages() []Message {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := []Message{}
	for _, m := range ofKind[*Message](&f.state, KindMessage) {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b Message) int {
		if a.Waiting() != b.Waiting() {
			if a.Waiting() {
				return -1
			}
			return 1
		}
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// A message that could not be sent is tried again after retryFirst, then after twice as long each time, at most after retryMost.
const (
	retryFirst = 10 * time.Second
	retryMost  = time.Hour
)

// retryAfter is how long after so many attempts the next one is.
func retryAfter(attempts int) time.Duration {
	return min(retryMost, retryFirst<<min(max(0, attempts-1), 10))
}

// TakeMessage counts an attempt to send a message and returns it, nil if another appliance schedules the site, or it is not due. It is
// counted before it is sent: where the appliance dies meanwhile the next attempt waits its time.
func (f *Fleet) TakeMessage(ctx context.Context, id string) (*Message, error) {
	var taken *Message
	done, err := f.scheduled(ctx, func(d *draft) error {
		taken = nil
		m := lookup[*Message](d, KindMessage, id)
		now := d.f.now().UTC()
		if m == nil || !m.Waiting() || now.Before(m.Next) {
			return nil
		}
		own := edit(d, m)
		own.Attempts++
		own.Next = now.Add(retryAfter(own.Attempts))
		copied := *own
		taken = &copied
		return nil
	})
	if err != nil || !done {
		return nil, err
	}
	return taken, nil
}

// MessageTried enters what an attempt came to: "" is that the message was taken, else why not, as a sentence. That is an event the first
// time, and where it is given up.
func (f *Fleet) MessageTried(ctx context.Context, id, why string) error {
	return f.change(ctx, func(d *draft) error {
		m := lookup[*Message](d, KindMessage, id)
		if m == nil || !m.Waiting() {
			return nil
		}
		own, now := edit(d, m), d.f.now().UTC()
		if why == "" {
			own.Sent, own.Error, own.Next = now, "", time.Time{}
			return nil
		}
		first := own.Error == ""
		own.Error = why
		switch {
		case now.Sub(own.Created) > messageLife:
			own.GivenUp, own.Next = now, time.Time{}
			d.event(Event{Kind: "message.given-up", Text: "the message \"" + own.Subject + "\" was not sent for a week and is given up: " + why})
		case first:
			d.event(Event{Kind: "message.kept", Text: "the message \"" + own.Subject + "\" could not be sent and is kept: " + why})
		}
		return nil
	})
}

// MayTestMessages returns a Refusal unless who asks may send a test message.
func MayTestMessages(ctx context.Context) error {
	return may(ctx, RoleAdmin, "send a test message")
}

// MessagesTested notes that somebody sent a test message, and what came of it: a sentence.
func (f *Fleet) MessagesTested(ctx context.Context, text string) error {
	if err := MayTestMessages(ctx); err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		d.event(by(ctx, Event{Kind: "message.tested", Text: text}))
		return nil
	})
}

package api

import (
	"context"
	"fmt"
	"math"
	"time"

	"seedbed/appliance/alert"
	"seedbed/appliance/fleet"
)

// Tester sends test messages. alert.Alerts implements it.
type Tester interface {
	// TestMessages sends a test message on each channel that is set.
	TestMessages(ctx context.Context) ([]alert.Tested, error)
}

// addAlerts adds alerts and the messages about them.
func (o *Operators) addAlerts(tester Tester) {
	f := o.fleet
	add(o, "GET", "/alerts", "listAlerts", "List the alerts, those that are open first", func(_ context.Context, in *Cut) (*paged[fleet.Alert], error) {
		return page(f.Alerts(), *in, func(a fleet.Alert) string { return latestKey(a.Open(), a.Since, a.ID) })
	})
	add(o, "GET", "/messages", "listMessages", "List the messages about alerts, those that were not sent first", func(_ context.Context, in *Cut) (*paged[fleet.Message], error) {
		return page(f.Messages(), *in, func(m fleet.Message) string { return latestKey(m.Waiting(), m.Created, m.ID) })
	})
	add(o, "POST", "/messages/test", "testMessages", "Send a test message on each channel that is set", func(ctx context.Context, _ *struct{}) (*answer[[]alert.Tested], error) {
		if tester == nil {
			return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "this appliance sends no messages"}
		}
		return body(tester.TestMessages(ctx))
	})
}

// latestKey orders what is first before all else, and each part by time, the latest first.
func latestKey(first bool, at time.Time, id string) string {
	part := "1"
	if first {
		part = "0"
	}
	return part + fmt.Sprintf("%019d-%s", math.MaxInt64-at.UnixNano(), id)
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"time"
)

// Waits between two attempts to reach the appliance. A room of machines must not knock at the same moment, and an
// appliance that comes back is to be found at once.
const (
	firstWait = 300 * time.Millisecond
	lastWait  = 3 * time.Second
)

// retry calls f until it succeeds or the appliance refuses, for ever: an appliance may be away for a night. The screen
// says so. what completes the sentence "waiting for the appliance to ...".
func (a *Agent) retry(ctx context.Context, what string, f func(context.Context) error) error {
	wait := firstWait
	for began := time.Now(); ; {
		err := f(ctx)
		if err == nil {
			a.screen.Forget("wait")
			a.screen.answered()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if p := refused(err); p != nil {
			return err
		}
		if time.Since(began) > 5*time.Second {
			a.screen.SayOnce("wait", "waiting for the appliance to %s: %v; trying again until it answers", what, plain(err))
			a.screen.unanswered(fmt.Sprintf("The appliance does not answer: %v. The machine goes on asking. Look whether the appliance runs, and at the cable.", plain(err)))
		}
		if err := sleep(ctx, wait/2+rand.N(wait/2)); err != nil {
			return err
		}
		wait = min(2*wait, lastWait)
	}
}

// plain leaves out what net/http wraps around an error.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		return errors.New(op.Addr.String() + ": " + op.Err.Error())
	}
	return err
}

// sleep waits for d or returns the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

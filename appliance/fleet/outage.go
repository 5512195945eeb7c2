package fleet

import (
	"context"
	"log/slog"
)

// outage says that something which is tried again and again fails, when it begins to and when it works again, and not each time. The zero
// value works. Owned by one goroutine.
type outage struct{ lasts bool }

// note takes what came of one try. Where ctx has ended nothing is said: then the try was broken off.
func (o *outage) note(ctx context.Context, log *slog.Logger, level slog.Level, lost, back string, err error) {
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && !o.lasts:
		log.Log(ctx, level, lost, "err", err)
	case err == nil && o.lasts:
		log.Info(back)
	}
	o.lasts = err != nil
}

// levelOf is how loud an event is in the log: a peer that misbehaves is a warning, what changes as it should is not.
func levelOf(kind string) slog.Level {
	if kind == "swarm.barred" {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

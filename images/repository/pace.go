package repository

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// pace holds reading to a number of bytes a second. Safe for concurrent use; nil does not hold anything.
type pace struct{ limiter *rate.Limiter }

// newPace returns a pace; 0 bytes a second means nil. Up to a tenth of a second's bytes pass at once, so that short runs
// keep to it too.
func newPace(bytesPerSecond int64) *pace {
	if bytesPerSecond <= 0 {
		return nil
	}
	burst := max(int(bytesPerSecond/10), 1)
	p := &pace{rate.NewLimiter(rate.Limit(bytesPerSecond), burst)}
	p.limiter.AllowN(time.Now(), burst) // the bucket is full at first
	return p
}

// wait returns when so many bytes may be read.
func (p *pace) wait(ctx context.Context, bytes int64) error {
	for p != nil && bytes > 0 {
		n := min(bytes, int64(p.limiter.Burst()))
		if p.limiter.WaitN(ctx, int(n)) != nil { // it gives up early where the deadline would come first
			<-ctx.Done()
			return ctx.Err()
		}
		bytes -= n
	}
	return nil
}

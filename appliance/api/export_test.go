package api

import "time"

// SetBodyGrace changes how long a body may take at least, and returns how to take that back.
func SetBodyGrace(d time.Duration) (back func()) {
	was := bodyGrace
	bodyGrace = d
	return func() { bodyGrace = was }
}

// RequestsAtOnce is how many requests of one boot may be under way.
const RequestsAtOnce = requestsAtOnce

package fleet

import "context"

// Tidy is what Run does each second.
func Tidy(f *Fleet, ctx context.Context) error { return f.tidy(ctx) }

package fleet

import "context"

// Note adds a dated fact that concerns no machine or job: about images, or the appliance itself.
func (f *Fleet) Note(ctx context.Context, kind, text string) error {
	return f.change(ctx, func(d *draft) error {
		d.event(by(ctx, Event{Kind: kind, Text: text}))
		return nil
	})
}

package fleet

import "context"

// Tidy is what Run does each second.
func Tidy(f *Fleet, ctx context.Context) error { return f.tidy(ctx) }

// MaxUnknown is the bound of machines that were only seen in boot packets.
const MaxUnknown = maxUnknown

// Flood fills the memory with n machines that were only seen in boot packets.
func Flood(f *Fleet, n int) {
	for range n {
		id := newID()
		f.state.machines[id] = &Machine{ID: id, MACs: []string{id}}
	}
}

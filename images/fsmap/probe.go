package fsmap

// magic recognises a kind by fixed bytes at an offset.
func magic(name string, offset int, values ...string) func(*volume) *Info {
	return func(v *volume) *Info {
		for _, s := range values {
			if string(v.head[offset:offset+len(s)]) == s {
				return &Info{FS: name}
			}
		}
		return nil
	}
}

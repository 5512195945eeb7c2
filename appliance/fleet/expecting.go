package fleet

import "context"

type versionKey struct{}

// Expecting returns a context for one change to what is there, which is refused with CodeChanged unless the record that is named, the
// one that goes of a merge, and of all jobs of a deployment that one, has this version: that by which somebody decided. 0 is any.
func Expecting(ctx context.Context, version int64) context.Context {
	return context.WithValue(ctx, versionKey{}, version)
}

// expected refuses a change to a record that is not as its caller expects; name is what people call it.
func (d *draft) expected(ctx context.Context, r Record, name string) error {
	version, _ := ctx.Value(versionKey{}).(int64)
	if d.changed(r, version) {
		return refuse(CodeChanged, "%s was changed by somebody else meanwhile; look again", name)
	}
	return nil
}

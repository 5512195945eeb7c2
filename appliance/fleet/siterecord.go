package fleet

import (
	"context"
	"fmt"
	"time"

	"seedbed/images"
)

// Identity says whose site's records these are. There is one, which the first appliance writes.
type Identity struct {
	Version     int64         `json:"version"`
	Fingerprint images.Digest `json:"fingerprint"` // of the site's authority
	Since       time.Time     `json:"since"`
}

var identityKey = Key{KindIdentity, "site"}

func (i *Identity) Ref() Key     { return identityKey }
func (i *Identity) Row() *int64  { return &i.Version }
func (i *Identity) Shelf() Shelf { return Shelf{} }
func (i *Identity) copy() Record { own := *i; return &own }

// sameSite returns an error if the records are another site's: certificates and images of the one mean nothing to the other.
func sameSite(have Record, own images.Digest) error {
	i, ok := have.(*Identity)
	if !ok || i.Fingerprint == own {
		return nil
	}
	return fmt.Errorf("the records belong to the site with fingerprint %s, and this appliance's identity is %s: bring the identity over with "+
		"`seedbed site export` at an appliance of that site and `seedbed site import` here, in a new data directory, or give this appliance records of its "+
		"own with --store", i.Fingerprint, own)
}

// claimRecords writes whose records these are, unless that is written.
func (f *Fleet) claimRecords(ctx context.Context) error {
	own := f.config.Authority.Fingerprint()
	return f.change(ctx, func(d *draft) error {
		have := d.get(identityKey)
		if have == nil {
			d.add(&Identity{Fingerprint: own, Since: f.now().UTC()})
			return nil
		}
		return sameSite(have, own)
	})
}

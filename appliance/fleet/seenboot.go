package fleet

import (
	"context"
	"slices"
	"strings"
	"time"
)

// SeenBoot is one boot of a machine as one appliance saw it. The fleet keeps it and does not look into it.
type SeenBoot struct {
	MAC       string // "52:54:00:77:00:10"
	Appliance string // ID of the one that saw it
	// Began and Latest are when its first and its last step were seen, by that appliance's clock.
	Began, Latest time.Time
	Doc           []byte
}

// KeptBoots is how many boots of a machine are kept as one appliance saw them.
const KeptBoots = 5

// BootQuery asks for boots, those seen last first; zero fields ask for all.
type BootQuery struct {
	MACs      []string
	Appliance string
	Since     time.Time // seen then or later
	Limit     int       // 0 is 1000
}

// KeepBoots writes how machines boot as this appliance saw it. What is seen of a card that is no machine's is not written: packets of
// made-up cards fill no disk.
func (f *Fleet) KeepBoots(ctx context.Context, list []SeenBoot) error {
	f.mu.RLock()
	list = slices.DeleteFunc(slices.Clone(list), func(b SeenBoot) bool { return !f.hasCard(b.MAC) })
	f.mu.RUnlock()
	if len(list) == 0 {
		return nil
	}
	for i := range list {
		list[i].Appliance = f.config.ID
	}
	return f.config.Records.KeepBoots(ctx, list)
}

// hasCard reports whether a MAC is one of a machine's. The caller holds mu.
func (f *Fleet) hasCard(mac string) bool { return len(f.traits["mac "+mac]) > 0 }

// SeenBoots returns what the site's appliances saw of the boots of some cards, what was seen last first.
func (f *Fleet) SeenBoots(ctx context.Context, macs []string) ([]SeenBoot, error) {
	if len(macs) == 0 {
		return nil, nil
	}
	return f.config.Records.Boots(ctx, BootQuery{MACs: macs})
}

// maxOwnBoots is how many boots an appliance takes up again at most: of a site's machines that all booted just now.
const maxOwnBoots = 8192

// OwnBoots returns the boots that this appliance saw since a time, before it was started too.
func (f *Fleet) OwnBoots(ctx context.Context, since time.Time) ([]SeenBoot, error) {
	return f.config.Records.Boots(ctx, BootQuery{Appliance: f.config.ID, Since: since, Limit: maxOwnBoots})
}

// ApplianceName is the name of the host of one of the site's appliances, or its ID where that is not known.
func (f *Fleet) ApplianceName(id string) string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if a, ok := f.state.others[Key{KindAppliance, id}].(*Appliance); ok && a.Name != "" {
		return a.Name
	}
	return id
}

// retainBoots deletes the boots that were seen last before a time or after another, where zero is none, and those of cards that are no
// machine's any more. No event tells of it: each is one of a machine's last few.
func (f *Fleet) retainBoots(ctx context.Context, before, after time.Time) error {
	macs, err := f.config.Records.BootMACs(ctx)
	if err != nil {
		return err
	}
	f.mu.RLock()
	macs = slices.DeleteFunc(macs, func(mac string) bool { return f.hasCard(strings.ToLower(mac)) })
	f.mu.RUnlock()
	_, err = f.config.Records.ForgetBoots(ctx, before, after, macs)
	return err
}

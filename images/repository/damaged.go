package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"

	"seedbed/images"
)

// Records that were found damaged are named in objects damaged/PACK/SUM, so that no appliance uses them for new images
// or as a source; the images that use them are healed by other means. Several objects of a pack add up. SUM is the
// beginning of the SHA-256 of the bytes:
//
//	magic "SBDAMAGED1\n", then lines: the ordinal of a record, or "all"; at last CRC-32C of all before as 8
//	hexadecimal digits and a line feed
const (
	// DamagedPrefix begins the keys of these objects.
	DamagedPrefix = "damaged/"
	damagedMagic  = "SBDAMAGED1\n"
	damagedPrefix = DamagedPrefix
	// maxDamagedLength bounds such an object: a pack has fewer than 2^31/49 records.
	maxDamagedLength = 1 << 29
)

// badRecords are the damaged records of a pack. Immutable; the zero value is none.
type badRecords struct {
	all      bool
	ordinals map[uint32]bool
	objects  map[string]bool // where they were read
}

func (b badRecords) has(ordinal uint32) bool { return b.all || b.ordinals[ordinal] }

// with returns the records of b and of o.
func (b badRecords) with(o badRecords) badRecords {
	sum := badRecords{all: b.all || o.all, ordinals: map[uint32]bool{}, objects: map[string]bool{}}
	for _, one := range []badRecords{b, o} {
		maps.Copy(sum.ordinals, one.ordinals)
		maps.Copy(sum.objects, one.objects)
	}
	return sum
}

func (b badRecords) encode() []byte {
	out := []byte(damagedMagic)
	if b.all {
		out = append(out, "all\n"...)
	} else {
		for _, n := range slices.Sorted(maps.Keys(b.ordinals)) {
			out = fmt.Appendln(out, n)
		}
	}
	return fmt.Appendf(out, "%08x\n", crc32.Checksum(out, castagnoli))
}

func decodeBadRecords(b []byte) (bad badRecords, err error) {
	const sumLength = 9
	if len(b) < len(damagedMagic)+sumLength || string(b[:len(damagedMagic)]) != damagedMagic {
		return bad, errors.New("damaged records: no magic at byte 0")
	}
	body, sum := b[:len(b)-sumLength], b[len(b)-sumLength:]
	if !bytes.Equal(sum, fmt.Appendf(nil, "%08x\n", crc32.Checksum(body, castagnoli))) {
		return bad, errors.New("damaged records: the checksum is wrong")
	}
	bad.ordinals = map[uint32]bool{}
	for line := range strings.Lines(string(body[len(damagedMagic):])) {
		line = strings.TrimSuffix(line, "\n")
		if line == "all" {
			bad.all = true
			continue
		}
		n, err := strconv.ParseUint(line, 10, 32)
		if err != nil {
			return bad, fmt.Errorf("damaged records: %.20q is no ordinal", line)
		}
		bad.ordinals[uint32(n)] = true
	}
	return bad, nil
}

// readDamaged returns the damaged records of all packs; objects that known has are not fetched again.
func (r *Repository) readDamaged(ctx context.Context, known map[images.Digest]badRecords) (map[images.Digest]badRecords, error) {
	list := maps.Clone(known) // what was damaged once stays so
	if list == nil {
		list = map[images.Digest]badRecords{}
	}
	for o, err := range r.bucket.List(ctx, damagedPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list damaged records: %w", err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Key, damagedPrefix), "/")
		id, err := images.ParseDigest(name)
		if err != nil || list[id].objects[o.Key] {
			continue
		}
		b, err := fetch(ctx, r.bucket, o.Key, maxDamagedLength)
		if errors.Is(err, ErrNotExist) {
			continue // removed with its pack
		}
		if err != nil {
			return nil, err
		}
		bad, err := decodeBadRecords(b)
		if err != nil {
			r.log.Warn("list of damaged records is damaged; verify the images", "object", o.Key, "err", err)
			continue
		}
		bad.objects = map[string]bool{o.Key: true}
		list[id] = list[id].with(bad)
	}
	return list, nil
}

// condemnRecords makes it known, durably, that records of a pack are damaged.
func (r *Repository) condemnRecords(ctx context.Context, id images.Digest, bad badRecords) error {
	a := &r.avoid
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	a.mu.RLock()
	known := a.damaged[id]
	a.mu.RUnlock()
	added := badRecords{all: bad.all && !known.all, ordinals: map[uint32]bool{}}
	for n := range bad.ordinals {
		if !known.has(n) {
			added.ordinals[n] = true
		}
	}
	if !added.all && len(added.ordinals) == 0 {
		return nil
	}
	b := added.encode()
	key := damagedPrefix + id.String() + "/" + images.Sum(b).String()[:16]
	if err := r.bucket.Put(ctx, key, bytes.NewReader(b), int64(len(b))); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("note damaged tiles of pack %s: %w", id, err)
	}
	added.objects = map[string]bool{key: true}
	a.mu.Lock()
	defer a.mu.Unlock()
	damaged := maps.Clone(a.damaged)
	if damaged == nil {
		damaged = map[images.Digest]badRecords{}
	}
	damaged[id] = known.with(added)
	a.damaged = damaged
	r.applyAvoidance()
	return nil
}

// condemnAll is condemnRecords for what a verification found, which it tells even where it cannot be noted.
func (r *Repository) condemnAll(ctx context.Context, bad map[images.Digest]badRecords) {
	if len(bad) == 0 {
		return
	}
	err := r.ready(ctx)
	for id, records := range bad {
		if err == nil {
			err = r.condemnRecords(ctx, id, records)
		}
	}
	if err != nil {
		r.log.Warn("damaged tiles cannot be noted, captures may use them; verify again", "err", err)
	}
}

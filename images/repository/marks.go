package repository

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	"crypto/rand"
)

// A mark list names objects that no image used when it was written and that may be removed once it has aged. Captures
// that begin after it was written use none of them; captures that began before have ended when they are removed.
//
//	magic "SBMARKS1\n", then for each object its key and a line feed, at last CRC-32C of all before as 8 hexadecimal
//	digits and a line feed
//
// It is named prune/marks/ID with a random ID and never changes.
const (
	marksMagic  = "SBMARKS1\n"
	marksPrefix = "prune/marks/"
	// maxMarks bounds the keys of one list; more make more lists.
	maxMarks = 100_000
	// maxMarksLength bounds a list in bytes.
	maxMarksLength = maxMarks * (maxKeyLength + 1)
)

// markList is a decoded mark list.
type markList struct {
	key     string // of the list itself
	written time.Time
	keys    []string
	damaged error // set if it cannot be read; then it marks nothing
}

// marked is a set of keys. Immutable.
type marked map[string]struct{}

func (m marked) has(key string) bool {
	_, ok := m[key]
	return ok
}

func encodeMarks(keys []string) []byte {
	b := []byte(marksMagic)
	for _, k := range keys {
		b = append(append(b, k...), '\n')
	}
	return fmt.Appendf(b, "%08x\n", crc32.Checksum(b, castagnoli))
}

func decodeMarks(b []byte) ([]string, error) {
	const sumLength = 9
	if len(b) < len(marksMagic)+sumLength || string(b[:len(marksMagic)]) != marksMagic {
		return nil, errors.New("mark list: no magic at byte 0")
	}
	body, sum := b[:len(b)-sumLength], b[len(b)-sumLength:]
	if !bytes.Equal(sum, fmt.Appendf(nil, "%08x\n", crc32.Checksum(body, castagnoli))) {
		return nil, errors.New("mark list: the checksum is wrong")
	}
	var keys []string
	for line := range strings.Lines(string(body[len(marksMagic):])) {
		key, whole := strings.CutSuffix(line, "\n")
		if err := CheckKey(key); err != nil || !whole {
			return nil, fmt.Errorf("mark list: %.80q is no key", line)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// writeMarks writes mark lists for the keys.
func (r *Repository) writeMarks(ctx context.Context, keys []string) error {
	for part := range slices.Chunk(keys, maxMarks) {
		var id [16]byte
		rand.Read(id[:])
		b := encodeMarks(part)
		if err := r.bucket.Put(ctx, marksPrefix+hex.EncodeToString(id[:]), bytes.NewReader(b), int64(len(b))); err != nil {
			return err
		}
	}
	return nil
}

// readMarks returns the mark lists of the bucket; those in known are not fetched again.
func (r *Repository) readMarks(ctx context.Context, known map[string]*markList) (map[string]*markList, error) {
	lists := map[string]*markList{}
	for o, err := range r.bucket.List(ctx, marksPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list marks: %w", err)
		}
		if l := known[o.Key]; l != nil && l.damaged == nil {
			lists[o.Key] = l
			continue
		}
		b, err := fetch(ctx, r.bucket, o.Key, maxMarksLength)
		if errors.Is(err, ErrNotExist) {
			continue // swept meanwhile: what it named is gone
		}
		if err != nil {
			return nil, err
		}
		l := &markList{key: o.Key, written: o.Modified}
		l.keys, l.damaged = decodeMarks(b)
		lists[o.Key] = l
	}
	return lists, nil
}

// Objects with the same content may exist in generations, KEY, KEY.g2, KEY.g3 and so on: a new one is written where the
// one before is damaged, or marked and therefore about to go.

// generationKey returns the key of a generation from 1.
func generationKey(key string, generation int) string {
	if generation <= 1 {
		return key
	}
	return key + ".g" + strconv.Itoa(generation)
}

// generationOf is the reverse of generationKey.
func generationOf(object string) (key string, generation int) {
	if i := strings.LastIndex(object, ".g"); i > 0 {
		if n, err := strconv.Atoi(object[i+2:]); err == nil && n > 1 && generationKey(object[:i], n) == object {
			return object[:i], n
		}
	}
	return object, 1
}
